import json
import ssl
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3

from imburse_auth.errors import (
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnavailable,
    VendingError,
)
from imburse_auth.retry import Deadline
from imburse_auth.transport import Transport, Unauthorized
from tests.fakes import BASE_URL, Clock, FakeImburse

SECRET_HEADER = "Hmac some-public-key:nonce:1614350382:c2lnbmF0dXJl"


class Sent:
    """A transport to a fake Imburse that answers one thing."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.imburse = FakeImburse(self.clock)
        self.transport = self.imburse.transport()

    def answer(self, status: int, body: Any = b"{}", **headers: str) -> Any:
        self.imburse.script.append(lambda _: self.imburse.answer(body, status, **headers))
        return self.send()

    def fail(self, failure: Exception) -> Any:
        self.imburse.script.append(lambda _: failure)
        return self.send()

    def send(self, seconds: float = 10.0) -> Any:
        deadline = Deadline.after(seconds, self.clock)
        headers = {"Authorization": SECRET_HEADER}
        return self.transport.send("POST", BASE_URL + "/v1/x", headers, deadline=deadline, correlation_id="corr-1")


@pytest.fixture
def sent() -> Sent:
    return Sent()


def test_what_is_sent(sent: Sent) -> None:
    sent.answer(200)
    request = sent.imburse.requests[0]
    assert (request.method, request.url, request.body) == ("POST", BASE_URL + "/v1/x", None)
    assert request.headers["Authorization"] == SECRET_HEADER
    assert request.headers["X-Correlation-ID"] == "corr-1"
    assert request.headers["Content-Length"] == "0"
    assert "Cookie" not in request.headers


def test_a_body_is_sent_as_json(sent: Sent) -> None:
    deadline = Deadline.after(10, sent.clock)
    sent.imburse.script.append(lambda _: sent.imburse.answer(b"{}", 201))
    sent.transport.send("POST", BASE_URL + "/v1/x", {}, deadline=deadline, body={"name": "é"})
    request = sent.imburse.requests[0]
    assert request.headers["Content-Type"] == "application/json"
    assert isinstance(request.body, bytes)
    assert json.loads(request.body) == {"name": "é"}


def test_an_answer_without_content_is_one(sent: Sent) -> None:
    answer = sent.answer(204, b"", X_Correlation_ID="0HL:1")
    assert (answer.payload, answer.correlation_id) == (None, "0HL:1")


def test_a_good_answer_tells_the_upstreams_time(sent: Sent) -> None:
    assert sent.answer(200).date_seconds == sent.clock.now
    assert sent.answer(200, Date="soon").date_seconds is None


@pytest.mark.parametrize("status", [200, 201])
def test_a_good_answer_is_its_json_and_correlation_id(sent: Sent, status: int) -> None:
    answer = sent.answer(status, {"a": 1}, X_Correlation_ID="0HL:1")
    assert (answer.payload, answer.correlation_id) == ({"a": 1}, "0HL:1")
    assert "payload" not in repr(answer)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UpstreamRejected), (401, Unauthorized), (402, UpstreamRejected), (403, UpstreamRejected), (404, UpstreamRejected),
        (409, UpstreamRejected), (429, UpstreamThrottled), (500, UpstreamUnavailable), (502, UpstreamUnavailable),
        (503, UpstreamUnavailable), (504, UpstreamUnavailable), (301, UpstreamProtocol), (302, UpstreamProtocol),
        (307, UpstreamProtocol), (308, UpstreamProtocol), (202, UpstreamProtocol), (206, UpstreamProtocol),
    ],
)  # fmt: skip
def test_each_status_has_its_error(sent: Sent, status: int, kind: type[VendingError]) -> None:
    body = {"correlationId": "0HLP:2", "errors": [{"errorCode": "SOME_CODE"}]}
    with pytest.raises(VendingError) as caught:
        sent.answer(status, body, Location="https://evil.example/")
    assert type(caught.value) is kind
    assert caught.value.upstream is not None
    assert caught.value.upstream.status == status
    if status >= 400:
        assert caught.value.upstream.as_dict() == {
            "status": status,
            "errorCode": "SOME_CODE",
            "correlationId": "0HLP:2",
        }
    assert len(sent.imburse.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff\xfe", b"[" * 60_000, b"NaN, 1"])
def test_a_body_that_is_not_json_is_a_protocol_error(sent: Sent, body: bytes) -> None:
    with pytest.raises(UpstreamProtocol, match="not JSON"):
        sent.answer(200, body)


def test_a_body_over_64_kib_is_not_read_on(sent: Sent) -> None:
    assert sent.answer(200, json.dumps("x" * (64 * 1024 - 2)).encode()).payload.startswith("x")
    with pytest.raises(UpstreamProtocol, match="64 KiB"):
        sent.answer(200, json.dumps("x" * (64 * 1024 - 1)).encode())


def test_a_body_that_ends_early_is_unavailable_and_not_half_read(sent: Sent) -> None:
    with pytest.raises(UpstreamUnavailable, match="cut off"):
        sent.answer(200, b'{"accessToken": "abc"}', Content_Length="1000")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (requests.ConnectionError(SECRET_HEADER), UpstreamUnavailable),
        (requests.ConnectTimeout(SECRET_HEADER), UpstreamUnavailable),
        (requests.ReadTimeout(SECRET_HEADER), UpstreamUnavailable),
        (requests.exceptions.SSLError(ssl.SSLError(SECRET_HEADER)), UpstreamUnavailable),
        (requests.exceptions.ChunkedEncodingError(SECRET_HEADER), UpstreamProtocol),
        (requests.exceptions.InvalidHeader(SECRET_HEADER), UpstreamProtocol),
        (urllib3.exceptions.LocationParseError(SECRET_HEADER), UpstreamProtocol),
    ],
)
def test_each_way_to_fail_has_its_error_and_none_carries_the_header(
    sent: Sent, failure: Exception, kind: type[VendingError]
) -> None:
    with pytest.raises(VendingError) as caught:
        sent.fail(failure)
    error = caught.value
    assert type(error) is kind
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert SECRET_HEADER not in f"{error} {error!r} {error.reason} {error.detail}"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("99999999999999", 3600),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("1.5", None),
        (formatdate(1, usegmt=True), 0),
    ],
)
def test_retry_after_is_a_number_or_a_date_within_reason(sent: Sent, value: str, seconds: int | None) -> None:
    with pytest.raises(UpstreamThrottled) as caught:
        sent.answer(429, Retry_After=value)
    assert caught.value.retry_after_seconds == seconds


def test_retry_after_may_be_a_date(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: sent.clock.now)
    with pytest.raises(UpstreamUnavailable) as caught:
        sent.answer(503, Retry_After=formatdate(sent.clock.now + 42, usegmt=True))
    assert caught.value.retry_after_seconds == 42


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 99 Feb 2021 14:39:42 GMT", "\x00"])
def test_a_401_tells_the_upstreams_time_only_if_it_is_one(sent: Sent, date: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        sent.answer(401, Date=date)
    assert caught.value.date_seconds is None
    with pytest.raises(Unauthorized) as caught:
        sent.answer(401, Date=formatdate(1614350382, usegmt=True))
    assert caught.value.date_seconds == 1614350382


@pytest.mark.parametrize(
    "body",
    [
        [], {"errors": []}, {"errors": "x"}, {"errors": [1]}, {"errors": [{"errorCode": 1}]}, {"correlationId": ["x"]},
        {"errors": [{"errorCode": "bad\nline"}], "correlationId": "x\r\ny"}, {"errors": [{"errorCode": "x" * 65}], "correlationId": "y" * 129},
        {"errors": [{"errorCode": SECRET_HEADER}], "correlationId": SECRET_HEADER},
    ],
)  # fmt: skip
def test_what_is_no_id_is_not_taken_over_from_an_error_body(sent: Sent, body: Any) -> None:
    with pytest.raises(UpstreamRejected) as caught:
        sent.answer(403, body)
    assert caught.value.upstream is not None
    assert caught.value.upstream.as_dict() == {"status": 403}


def test_nothing_is_sent_when_no_time_is_left(sent: Sent) -> None:
    with pytest.raises(UpstreamUnavailable, match="no time"):
        sent.send(seconds=0)
    assert sent.imburse.requests == []


def test_the_environment_does_not_decide_what_is_sent_and_where_to(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    for name, value in {
        "HTTPS_PROXY": "http://proxy.test:1",
        "ALL_PROXY": "http://proxy.test:1",
        "NETRC": str(netrc),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(netrc))
    sent.answer(200)
    assert sent.imburse.requests[0].headers["Authorization"] == SECRET_HEADER
    assert not sent.imburse.options[0].get("proxies")
    assert sent.imburse.options[0]["verify"] is True


def test_no_cookie_comes_back(sent: Sent) -> None:
    sent.answer(200, b"{}", Set_Cookie="session=1; Path=/")
    sent.answer(200)
    assert "Cookie" not in sent.imburse.requests[1].headers


def test_a_request_is_tried_once_and_32_connections_are_kept() -> None:
    adapter: Any = Transport()._session.get_adapter("https://x.test")
    assert adapter.max_retries.total == 0
    assert adapter._pool_maxsize == 32
    assert adapter._pool_block is True
