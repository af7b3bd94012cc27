"""The emulator over HTTP: the vendor's shapes, the control side, and each fault as a client meets it."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from local.imburse import Imburse, ImburseKey
from local.imburse_hmac import expected_signature
from local.serving import bind, in_background, serving

KEY = ImburseKey("tenant-key", secrets.token_bytes(32), "account-1", "tenant-1")
SCOPE = {"x-account-id": "account-1", "x-tenant-id": "tenant-1"}


@pytest.fixture
def url() -> Iterator[str]:
    with in_background(serving(Imburse([KEY]).app(), bind(0))) as address:
        yield address


def signed(key: ImburseKey = KEY, *, body: bytes = b"") -> str:
    nonce, timestamp = secrets.token_hex(16), str(int(time.time()))
    return f"Hmac {key.public_key}:{nonce}:{timestamp}:{expected_signature(key, nonce, timestamp, body)}"


def exchange(url: str, authorization: str | None = None, **options: Any) -> requests.Response:
    headers = {"Authorization": authorization or signed(), **options.pop("headers", {})}
    return requests.post(f"{url}/v1/identity/hmac", headers=headers, timeout=10, allow_redirects=False, **options)


def me(url: str, token: str) -> requests.Response:
    return requests.get(f"{url}/v1/identity/me", headers={"Authorization": f"Bearer {token}", **SCOPE}, timeout=10)


def control(url: str, method: str, path: str, document: Any = None) -> requests.Response:
    return requests.request(method, f"{url}/control/{path}", json=document, timeout=10)


def fault(url: str, **document: Any) -> None:
    assert control(url, "POST", "faults", document).status_code == 201


def statistics(url: str) -> dict[str, Any]:
    counted: dict[str, Any] = control(url, "GET", "statistics").json()
    return counted


def error_code(response: requests.Response) -> str:
    return str(response.json()["errors"][0]["errorCode"])


def test_a_signed_request_gets_a_token_that_works_once(url: str) -> None:
    answer = exchange(url)

    assert answer.status_code == 200
    assert set(answer.json()) == {"accessToken", "expires"}
    assert answer.json()["expires"] == pytest.approx(time.time() + 1800, abs=5)
    token = answer.json()["accessToken"]
    assert token.count(".") == 2
    assert me(url, token).json() == {
        "accounts": [{"accountId": "account-1"}],
        "tenants": [{"tenantId": "tenant-1", "accountId": "account-1"}],
    }
    again = me(url, token)
    assert (again.status_code, error_code(again)) == (401, "ACCESS_TOKEN_ALREADY_USED")


def test_a_body_is_honoured(url: str) -> None:
    assert exchange(url, signed(body=b"{}"), data=b"{}").status_code == 200
    assert error_code(exchange(url, signed(), data=b"{}")) == "HMAC_SIGNATURE_MISMATCH"


def test_a_repeated_header_is_refused(url: str) -> None:
    header = signed()
    exchange(url, header)
    again = exchange(url, header)

    assert (again.status_code, error_code(again)) == (401, "HMAC_NONCE_ALREADY_USED")
    assert statistics(url)["noncesRefused"] == 1


def test_an_error_body_has_the_vendors_shape(url: str) -> None:
    answer = exchange(url, signed(ImburseKey("stranger", b"x", "account-1")), headers={"X-Correlation-ID": "mine-1"})

    assert answer.status_code == 401
    assert answer.headers["X-Correlation-ID"] == "mine-1"
    document = answer.json()
    assert document.pop("timestamp") == pytest.approx(time.time(), abs=5)
    assert document == {
        "correlationId": "mine-1",
        "errors": [
            {
                "errorCode": "API_KEY_NOT_FOUND",
                "message": "The API key stranger is not known.",
                "messageTemplate": "The API key {publicKey} is not known.",
                "metadata": {"publicKey": "stranger"},
            }
        ],
    }


@pytest.mark.parametrize("given", [None, "x" * 129, "café"])
def test_a_correlation_id_is_made_where_none_fit_to_repeat_was_sent(url: str, given: str | None) -> None:
    answer = exchange(url, "Hmac", headers={"X-Correlation-ID": given.encode()} if given else {})

    assert re.fullmatch(r"0H[0-9A-F]{10}:00000001", answer.headers["X-Correlation-ID"])
    assert answer.json()["correlationId"] == answer.headers["X-Correlation-ID"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/v1/identity/hmac", 405, "METHOD_NOT_ALLOWED"), ("GET", "/v2", 404, "ROUTE_NOT_FOUND")],
)
def test_an_unknown_route_is_refused_in_the_same_shape(
    url: str, method: str, path: str, status: int, code: str
) -> None:
    answer = requests.request(method, url + path, timeout=10)
    assert (answer.status_code, error_code(answer)) == (status, code)


def test_a_body_that_is_too_large_is_refused_in_the_same_shape(url: str) -> None:
    answer = exchange(url, data=b"x" * (1024 * 1024 + 1))
    assert (answer.status_code, error_code(answer)) == (413, "BODY_TOO_LARGE")


def test_keys_are_added_listed_and_revoked_at_run_time(url: str) -> None:
    private = secrets.token_bytes(32)
    document = {"publicKey": "new", "privateKey": base64.b64encode(private).decode(), "accountId": "account-2"}
    key = ImburseKey("new", private, "account-2")

    added = control(url, "POST", "keys", document)
    assert (added.status_code, added.json()) == (201, {"publicKey": "new", "accountId": "account-2", "roles": []})
    assert exchange(url, signed(key)).status_code == 200
    assert document["privateKey"] not in control(url, "GET", "keys").text
    assert control(url, "DELETE", "keys/new").status_code == 204
    assert error_code(exchange(url, signed(key))) == "API_KEY_REVOKED"
    assert control(url, "DELETE", "keys/new").status_code == 404


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"publicKey": "a:b", "privateKey": "AAAA", "accountId": "x"}'])
def test_a_key_document_that_is_none_is_refused(url: str, body: bytes) -> None:
    answer = requests.post(f"{url}/control/keys", data=body, timeout=10)
    assert (answer.status_code, error_code(answer)) == (400, "KEY_IS_INVALID")


def test_a_fault_that_is_none_is_refused(url: str) -> None:
    answer = control(url, "POST", "faults", {"kind": "nonsense"})
    assert (answer.status_code, error_code(answer)) == (400, "FAULT_IS_INVALID")


def test_a_status_is_answered_for_the_next_requests_and_no_token_is_issued(url: str) -> None:
    fault(url, kind="status", status=429, retryAfter=2, times=2, path="/v1/identity/hmac")

    for _ in range(2):
        answer = exchange(url, headers={"X-Correlation-ID": "mine"})
        assert (answer.status_code, answer.headers["Retry-After"], error_code(answer)) == (429, "2", "FAULT_429")
        assert answer.json()["correlationId"] == answer.headers["X-Correlation-ID"] == "mine"
    assert exchange(url).status_code == 200
    counted = statistics(url)
    assert (counted["exchangeRequests"], counted["tokensIssued"], counted["faultsServed"]) == (3, 1, 2)


@pytest.mark.parametrize("document", [{"kind": "status", "status": 503}, {"kind": "drop"}])
def test_an_attempt_that_failed_has_used_its_nonce_up(url: str, document: dict[str, Any]) -> None:
    fault(url, times=1, **document)
    header = signed()
    with suppress(requests.ConnectionError):
        exchange(url, header)

    assert error_code(exchange(url, header)) == "HMAC_NONCE_ALREADY_USED"


def test_a_dropped_connection_gives_no_answer(url: str) -> None:
    fault(url, kind="drop", times=1)

    with pytest.raises(requests.ConnectionError):
        exchange(url)
    assert statistics(url)["tokensIssued"] == 1
    assert exchange(url).status_code == 200


def test_a_connection_dropped_halfway_through_the_body_is_noticed(url: str) -> None:
    fault(url, kind="drop_mid_body", times=1)

    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        exchange(url)
    assert exchange(url).status_code == 200


def test_garbage_is_not_json(url: str) -> None:
    fault(url, kind="garbage", times=1)
    answer = exchange(url)

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()


def test_an_oversized_answer_is_valid_apart_from_its_size(url: str) -> None:
    fault(url, kind="oversized", bytes=100_000, times=1)
    answer = exchange(url)

    assert len(answer.content) == 100_000
    assert "accessToken" in answer.json()


def test_a_redirect_points_where_it_was_told_to(url: str) -> None:
    fault(url, kind="redirect", status=302, location="https://elsewhere.invalid/", times=1)
    answer = exchange(url)

    assert (answer.status_code, answer.headers["Location"]) == (302, "https://elsewhere.invalid/")
    assert statistics(url)["tokensIssued"] == 0


def test_a_wrong_clock_shows_in_the_date_header_and_refuses_the_right_time(url: str) -> None:
    fault(url, kind="clock", seconds=-3600)
    answer = exchange(url)

    assert error_code(answer) == "HMAC_TIMESTAMP_OUT_OF_WINDOW"
    assert parsedate_to_datetime(answer.headers["Date"]).timestamp() == pytest.approx(time.time() - 3600, abs=5)
    assert control(url, "DELETE", "faults").status_code == 204
    assert exchange(url).status_code == 200


def test_latency_makes_a_client_run_into_its_timeout(url: str) -> None:
    fault(url, kind="latency", seconds=30, times=1)

    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(f"{url}/v1/identity/hmac", headers={"Authorization": signed()}, timeout=0.2)


def test_the_same_token_can_be_answered_twice(url: str) -> None:
    first = exchange(url).json()
    fault(url, kind="same_token", times=1)

    assert exchange(url).json() == first
    assert exchange(url).json() != first
    assert statistics(url)["tokensDistinct"] == 2


def test_faults_are_listed_and_a_reset_clears_them_with_the_counts(url: str) -> None:
    fault(url, kind="status", status=500, times=3)
    assert control(url, "GET", "faults").json() == {
        "faults": [{"kind": "status", "path": None, "times": 3, "seconds": 0.0}]
    }
    exchange(url)

    assert control(url, "POST", "reset").status_code == 204
    assert control(url, "GET", "faults").json() == {"faults": []}
    assert statistics(url)["exchangeRequests"] == 0
    assert exchange(url).status_code == 200


def test_two_hundred_at_once_get_two_hundred_tokens(url: str) -> None:
    with ThreadPoolExecutor(32) as pool:
        tokens = set(pool.map(lambda _: exchange(url).json()["accessToken"], range(200)))

    assert len(tokens) == 200
    assert statistics(url)["tokensDistinct"] == 200


def test_of_many_who_use_one_token_at_once_one_succeeds(url: str) -> None:
    token = exchange(url).json()["accessToken"]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: me(url, token).status_code, range(16)))

    assert sorted(statuses) == [200] + [401] * 15
