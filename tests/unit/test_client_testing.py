"""FakeVending, as a consumer's tests use it."""

from __future__ import annotations

import io
import re
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import requests

from imburse_auth.client import VendedAuth, VendedSession, VendingFailed, testing
from imburse_auth.client.httpx_auth import HttpxVendedAuth
from imburse_auth.client.testing import FakeVending, fake_vending  # noqa: F401 - a fixture

AUTH = VendedAuth("sandbox/tenant-a")  # made at import, as a service does, where the environment names no source
PAYOUTS = "https://imburse.test/v1/payouts"


def pay_out(auth: VendedAuth = AUTH) -> requests.Response:
    """The code under test."""
    return requests.post(PAYOUTS, json={"amount": 100}, auth=auth, timeout=5)


def test_a_service_is_tested_without_a_network(fake_vending: FakeVending) -> None:  # noqa: F811
    fake_vending.answer("POST", "/v1/payouts", {"id": "payout-1"}, status=201)
    assert (pay_out().status_code, pay_out().json()) == (201, {"id": "payout-1"})
    first, second = fake_vending.calls
    assert (first.method, first.path, first.body) == ("POST", "/v1/payouts", b'{"amount": 100}')
    assert (first.credential, first.headers["x-account-id"]) == ("sandbox/tenant-a", "fake-account")
    assert first.access_token != second.access_token
    fake_vending.check_each_call_used_its_own_token()
    assert [asked.count for asked in fake_vending.asked] == [1, 1]


def test_a_refusal_can_be_ordered(fake_vending: FakeVending) -> None:  # noqa: F811
    fake_vending.fail("over_budget", times=2, retry_after_seconds=7)
    for _ in range(2):
        with pytest.raises(VendingFailed) as caught:
            pay_out()
    failure = caught.value
    assert (failure.code, failure.status, failure.retryable, failure.retry_after_seconds) == (
        "over_budget",
        429,
        True,
        7,
    )
    assert pay_out().status_code == 200
    assert len(fake_vending.calls) == 1


def test_an_expired_token_is_refused_and_replaced_as_imburse_and_the_client_do(fake_vending: FakeVending) -> None:  # noqa: F811
    auth = VendedAuth("sandbox/tenant-a", ahead=2)
    pay_out(auth)
    fake_vending.expire()
    response = pay_out(auth)
    assert (response.status_code, [past.status_code for past in response.history]) == (200, [401])
    fake_vending.check_each_call_used_its_own_token()


def test_a_token_used_twice_is_refused_and_found(fake_vending: FakeVending) -> None:  # noqa: F811
    [vended] = fake_vending.tokens("sandbox/tenant-a")
    codes = [requests.get(PAYOUTS, headers=vended.headers, timeout=5).status_code for _ in range(2)]
    assert codes == [200, 401]
    with pytest.raises(AssertionError, match="call 2, GET /v1/payouts"):
        fake_vending.check_each_call_used_its_own_token()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer made-up"}, {"Authorization": "Basic eA=="}])
def test_a_call_without_a_token_of_ours_is_refused_and_found(
    fake_vending: FakeVending,  # noqa: F811
    headers: dict[str, str],
) -> None:
    assert requests.get(PAYOUTS, headers=headers, timeout=5).status_code == 401
    with pytest.raises(AssertionError, match="call 1"):
        fake_vending.check_each_call_used_its_own_token()


def test_twenty_threads_get_a_token_a_call(fake_vending: FakeVending) -> None:  # noqa: F811
    auth = VendedAuth("sandbox/tenant-a", ahead=9)
    with ThreadPoolExecutor(20) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: pay_out(auth), range(100))} == {200}
    fake_vending.check_each_call_used_its_own_token()
    assert len(fake_vending.calls) == 100


def test_without_pytest_it_is_a_source_and_an_adapter() -> None:
    fake = FakeVending("https://other.test")
    with VendedSession("sandbox/tenant-a", fake) as session:
        session.mount(fake.base_url, fake.adapter)
        assert session.get("/v1/identity/me").json() == {}
    fake.check_each_call_used_its_own_token()


def test_httpx_is_tested_the_same_way() -> None:
    fake = FakeVending()
    auth = HttpxVendedAuth("sandbox/tenant-a", fake, ahead=2)
    with httpx.Client(auth=auth, transport=httpx.MockTransport(fake.by_httpx)) as client:
        assert client.post(PAYOUTS, json={"amount": 100}).status_code == 200
        fake.expire()
        assert len(client.get(PAYOUTS).history) == 1
    assert [call.status for call in fake.calls] == [200, 401, 200]
    fake.check_each_call_used_its_own_token()


def test_nothing_of_it_stays_in_force() -> None:
    before = requests.Session.get_adapter
    for fake in testing._in_force(FakeVending()):
        assert pay_out().status_code == 200
        assert fake.calls
    assert requests.Session.get_adapter is before
    with pytest.raises(ValueError, match="VENDING_API"):
        pay_out()


def test_a_credential_that_is_no_id_is_refused_like_by_the_real_one(fake_vending: FakeVending) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="credential"):
        fake_vending.tokens("tenant-a")


def test_no_token_is_in_a_repr(fake_vending: FakeVending) -> None:  # noqa: F811
    pay_out()
    assert "fake-" not in repr(fake_vending.calls).replace("fake-account", "")


def test_the_example_in_its_documentation_is_a_test_that_passes(fake_vending: FakeVending) -> None:  # noqa: F811
    blocks = re.findall(r"(?:^    .*\n|^\n)+", testing.__doc__ or "", re.MULTILINE)
    in_conftest, in_test = (textwrap.dedent(block) for block in blocks if block.strip())
    names: dict[str, Any] = {"pay_out": pay_out}
    exec(in_conftest + in_test, names)
    assert names["fake_vending"] is testing.fake_vending
    names["test_a_payout_is_asked_for_once"](fake_vending)


@pytest.mark.parametrize(
    "body", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc", io.BytesIO(b"abc"), iter([b"a", b"bc"])]
)
def test_whatever_requests_takes_for_a_body_is_a_body_here(body: Any, fake_vending: FakeVending) -> None:  # noqa: F811
    requests.post(f"{fake_vending.base_url}/v1", data=body, auth=VendedAuth("sandbox/tenant-a"), timeout=5)
    assert fake_vending.calls[0].body == b"abc"
