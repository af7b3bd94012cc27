"""`imburse-vending call`: a token goes to the credential's own host, once, and nowhere else."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth.client import Vended
from imburse_vending import door, imburse_call
from imburse_vending.common import CommandError
from imburse_vending.imburse_call import checked_path
from tests.cli_run import FakeSource, run, vended


class Wire(requests.adapters.BaseAdapter):
    """Answers each request with the next of `answers`: status and body, or what is raised."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[int, bytes] | Exception] = []
        self.sent: list[requests.PreparedRequest] = []
        self.settings: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:  # type: ignore[override]
        self.sent.append(request)
        self.settings.append(settings)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        response = requests.Response()
        response.status_code, response.reason, response.url = answer[0], "Said", str(request.url)
        response.raw = urllib3.HTTPResponse(io.BytesIO(answer[1]), preload_content=False)
        response.headers["X-Correlation-ID"] = "corr-1"
        response.headers["Location"] = "https://evil.test/"
        response.request = request
        return response

    def close(self) -> None:
        return


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    with (
        mock.patch.object(
            requests.adapters.HTTPAdapter, "send", lambda _self, request, **more: wire.send(request, **more)
        ),
        mock.patch.object(
            door, "source_of", return_value=FakeSource([[vended()], [vended("token-2")], [vended("token-3")]])
        ),
    ):
        yield wire


def test_it_sends_the_token_and_prints_the_body_to_the_byte(wire: Wire) -> None:
    wire.answers = [(200, b'{"a":  1}')]
    done = run("call", "get", "/v1/identity/me?x=1", "sandbox/tenant-a")
    assert (done.code, done.out) == (0, '{"a":  1}')
    assert re.fullmatch("200 Said, [0-9]+ ms, correlation id corr-1\n", done.err)
    (sent,) = wire.sent
    assert (sent.method, sent.url) == ("GET", "https://api.imburse.test/v1/identity/me?x=1")
    assert sent.headers["Authorization"] == "Bearer token-1"
    assert (sent.headers["x-account-id"], sent.headers["x-tenant-id"]) == ("account-1", "tenant-1")
    assert wire.settings[0]["timeout"] == (5, 35)
    assert wire.settings[0]["verify"] is True


def test_a_terminal_gets_readable_json_that_cannot_steer_it(wire: Wire) -> None:
    wire.answers = [(200, b'{"a":1,"b":"\xc2\x9b2J\xe2\x80\xae"}'), (200, b"\x1b[2Jhello")]
    shown = run("call", "GET", "/v1/x", "sandbox/tenant-a", terminal=True).out
    assert '"a"' in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    wire.answers.append((200, b'{"b":"\xc2\x9b2J"}'))
    assert "\x1b[2J" not in run("call", "GET", "/v1/x", "sandbox/tenant-a", terminal=True).out
    assert "\x9b" not in run("call", "GET", "/v1/x", "sandbox/tenant-a", "--json", terminal=True).out


def test_a_body_is_json_unless_a_header_says_otherwise(wire: Wire, tmp_path: Path) -> None:
    wire.answers = [(201, b"{}"), (201, b"{}")]
    (tmp_path / "order").write_bytes(b'{"orderRef": "A-1"}')
    run("call", "POST", "/v1/orders", "sandbox/tenant-a", "--data", str(tmp_path / "order"))
    arguments = ["--data", "-", "--header", "content-type: text/csv", "--header", "Idempotency-Key: 4711"]
    run("call", "POST", "/v1/orders", "sandbox/tenant-a", *arguments, stdin=b"a,b")
    assert [sent.body for sent in wire.sent] == [b'{"orderRef": "A-1"}', b"a,b"]
    assert wire.sent[0].headers["Content-Type"] == "application/json"
    assert wire.sent[1].headers["content-type"] == "text/csv"
    assert wire.sent[1].headers["Idempotency-Key"] == "4711"


@pytest.mark.parametrize("status", [302, 400, 401, 404, 500, 503])
def test_what_is_no_2xx_ends_with_1_and_is_neither_followed_nor_repeated(wire: Wire, status: int) -> None:
    wire.answers = [(status, b"{}")]
    assert run("call", "POST", "/v1/orders", "sandbox/tenant-a").code == 1
    assert len(wire.sent) == 1


def test_json_has_status_and_body(wire: Wire) -> None:
    wire.answers = [(404, b"no such thing")]
    done = run("call", "GET", "/v1/x", "sandbox/tenant-a", "--json")
    assert json.loads(done.out) == {"status": 404, "correlationId": "corr-1", "body": "no such thing"}
    assert done.code == 1


@pytest.mark.parametrize(
    "failure",
    [
        requests.ConnectionError("Bearer token-1"),
        requests.Timeout("Bearer token-1"),
        requests.exceptions.InvalidHeader("Bearer token-1"),
        urllib3.exceptions.ProtocolError("Bearer token-1"),
        OSError("Bearer token-1"),
    ],
)
def test_no_answer_is_try_later_for_a_get_and_never_for_a_payment(wire: Wire, failure: Exception) -> None:
    wire.answers = [failure, failure]
    got = run("call", "GET", "/v1/x", "sandbox/tenant-a")
    posted = run("call", "POST", "/v1/orders", "sandbox/tenant-a")
    assert (got.code, posted.code) == (4, 1)
    assert "before you repeat it" in posted.err
    assert "token-1" not in got.text + posted.text


def test_an_answer_without_an_end_is_cut_off(wire: Wire) -> None:
    wire.answers = [(200, b"x" * 100)]
    with mock.patch.object(imburse_call, "MOST_BYTES", 99):
        assert run("call", "GET", "/v1/x", "sandbox/tenant-a").code == 1


PATHS = [
    "v1/x", "//evil.test/v1", "https://evil.test/", "/\\evil.test", "/v1/../../x", "/v1/%2e%2e/x", "/v1/%252e%252e/x",
    "/v1/%5cx", "/v1/x#y", "/v1/x y", "/v1/\nx", "/é", "", ".evil.test/", "@evil.test/", ":80@evil.test/", "/v1/./x",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_could_lead_elsewhere_is_refused_before_a_token_is_vended(wire: Wire, path: str) -> None:
    done = run("call", "GET", "--", path, "sandbox/tenant-a")
    assert (done.code, wire.sent) == (2, [])
    assert door.source_of.call_count == 0  # type: ignore[attr-defined]


@given(st.text(alphabet="/.@:?#%\\ea2Fv1 \n[]", max_size=12))
def test_whatever_path_is_let_through_stays_at_the_host(path: str) -> None:
    try:
        checked = checked_path(path)
    except CommandError:
        return
    prepared = requests.Request("GET", "https://api.imburse.test/base" + checked).prepare()
    assert str(prepared.url).startswith("https://api.imburse.test/base/")


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: x",
        "x-account-id: other",
        "X-Tenant-Id: other",
        "Host: evil.test",
        "no colon",
        "a: b\nc: d",
        "é: x",
    ],
)
def test_a_header_of_the_token_is_not_replaced(wire: Wire, header: str) -> None:
    assert run("call", "GET", "/v1/x", "sandbox/tenant-a", "--header", header).code == 2
    assert wire.sent == []


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "GET /x", "", "PÖST"])
def test_a_method_that_is_none_is_refused(wire: Wire, method: str) -> None:
    assert run("call", "--", method, "/v1/x", "sandbox/tenant-a").code == 2
    assert wire.sent == []


@pytest.mark.parametrize("base_url", ["http://api.imburse.test", "https://user@evil.test", "file:///etc", ""])
def test_a_token_goes_to_no_host_that_is_not_https(base_url: str) -> None:
    with pytest.raises(CommandError, match="none that a token may go to"):
        imburse_call.send(vended(base_url=base_url), "GET", "/v1/x")


def test_a_header_that_would_be_two_is_not_sent() -> None:
    bad: Vended = vended(account="a\r\nHost: evil.test")
    with pytest.raises(CommandError, match="cannot be sent"):
        imburse_call.send(bad, "GET", "/v1/x")
