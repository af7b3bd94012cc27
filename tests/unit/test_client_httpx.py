"""HttpxVendedAuth on both of httpx's clients; what only a real connection shows is in e2e/test_client.py."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import pytest_socket

from imburse_auth.client import Misdirected, VendingFailed
from imburse_auth.client.httpx_auth import HttpxVendedAuth
from tests.client_wire import CREDENTIAL, ME, CountingSource, failing
from tests.fakes import NOW, Clock
from tests.processes import wait_until

SPENT = (401, {"errors": [{"errorCode": "ACCESS_TOKEN_ALREADY_USED"}]})
OTHER = (401, {"errors": [{"errorCode": "TENANT_ID_HAS_NO_ACCESS"}]})


class Ask:
    """Sends requests by one of the two clients; `sent` holds the headers and bodies, `script` the answers, 200 when empty."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.script: list[Any] = []
        self.sent: list[tuple[str, dict[str, str], bytes]] = []
        self.source = CountingSource()
        self.clock = Clock()
        self.options: dict[str, Any] = {}

    def __call__(self, method: str = "GET", url: str = ME, **request: Any) -> httpx.Response:
        auth = HttpxVendedAuth(CREDENTIAL, self.source, clock=self.clock, **self.options)
        transport = httpx.MockTransport(self._answer)
        if self.kind == "sync":
            with httpx.Client(auth=auth, transport=transport, trust_env=False) as client:
                return client.request(method, url, **request)

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(auth=auth, transport=transport, trust_env=False) as client:
                return await client.request(method, url, **request)

        return anyio.run(ask)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append((str(request.url), dict(request.headers), request.content))
        play = self.script.pop(0) if self.script else (200, {})
        if callable(play):
            play = play()
        return play if isinstance(play, httpx.Response) else httpx.Response(play[0], json=play[1])

    @property
    def tokens(self) -> list[str]:
        return [headers["authorization"] for _, headers, _ in self.sent]


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    """In the place of the one for all unit tests: a loop wakes itself by a pair of sockets that lead nowhere."""
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return Ask(request.param)


def test_each_request_has_a_token_of_its_own_and_the_headers_that_go_with_it(ask: Ask) -> None:
    ask(headers={"Authorization": "left over", "X-Tenant-Id": "left over"})
    ask()
    assert ask.tokens == ["Bearer token-1", "Bearer token-2"]
    assert (ask.sent[0][1]["x-account-id"], ask.sent[0][1]["x-tenant-id"]) == ("account-1", "tenant-a")


def test_a_request_to_another_host_is_refused_before_anything_is_sent(ask: Ask) -> None:
    for url in ("https://elsewhere.test/", "http://sandbox.imburse.test/", "https://sandbox.imburse.test:8443/"):
        with pytest.raises(Misdirected):
            ask(url=url)
    assert ask.sent == []


def test_without_a_token_nothing_is_sent(ask: Ask) -> None:
    ask.source.before = failing("not_authorized", status=403)
    with pytest.raises(VendingFailed, match="not_authorized"):
        ask()
    assert ask.sent == []


def test_a_spent_token_is_replaced_once(ask: Ask) -> None:
    ask.script = [SPENT, SPENT, SPENT]
    response = ask("POST", json={"amount": 100})
    assert (response.status_code, [past.status_code for past in response.history]) == (401, [401])
    assert ask.tokens == ["Bearer token-1", "Bearer token-2"]
    assert ask.sent[0][2] == ask.sent[1][2] == b'{"amount":100}'


def test_a_401_that_a_new_token_would_not_cure_is_not_tried_again(ask: Ask) -> None:
    ask.script = [OTHER]
    assert ask().status_code == 401
    assert len(ask.sent) == 1


def test_any_401_is_tried_again_if_the_token_ran_out_on_its_way(ask: Ask) -> None:
    def slow() -> tuple[int, Any]:
        ask.clock.now = NOW + 1801
        return OTHER

    ask.script = [slow]
    assert ask().status_code == 200


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body without a Content-Length, as an answer in chunks has it."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error, self.closed = pieces, error, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def test_a_spent_token_is_replaced_if_the_answer_comes_in_chunks(ask: Ask) -> None:
    body = Pieces(*json.dumps(SPENT[1]).encode().partition(b"ACCESS"))
    ask.script = [httpx.Response(401, stream=body)]
    response = ask()
    assert (response.status_code, len(response.history), body.closed) == (200, 1, True)
    assert response.history[0].json() == SPENT[1]


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "99999"}])
def test_a_long_401_is_not_tried_again_and_is_still_whole(ask: Ask, headers: dict[str, str]) -> None:
    body = Pieces(*[b"x" * 33_333] * 3)
    ask.script = [httpx.Response(401, stream=body, headers=headers)]
    response = ask()
    assert (response.status_code, len(response.content), body.closed) == (401, 99_999, True)


def test_a_401_that_breaks_off_is_httpxs_own_error_and_names_its_request(ask: Ask) -> None:
    ask.script = [httpx.Response(401, stream=Pieces(b"{", error=httpx.ReadError("gone")))]
    with pytest.raises(httpx.ReadError) as caught:
        ask()
    assert str(caught.value.request.url) == ME


@pytest.mark.parametrize("status", [400, 403, 429, 503])
def test_no_other_status_is_ever_tried_again(ask: Ask, status: int) -> None:
    ask.script = [(status, SPENT[1])]
    assert ask().status_code == status
    assert len(ask.sent) == 1


def test_a_body_that_cannot_be_sent_again_is_not() -> None:
    ask = Ask("sync")
    ask.script = [SPENT]
    assert ask("POST", content=iter([b"once"])).status_code == 401
    assert len(ask.sent) == 1


def test_a_redirect_within_the_host_gets_a_token_of_its_own(ask: Ask) -> None:
    ask.script = [httpx.Response(307, headers={"Location": "/v2"}), SPENT]
    response = ask("POST", content=b"body", follow_redirects=True)
    assert response.status_code == 200
    assert ask.tokens == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    assert ask.sent[2][0].endswith("/v2")


def test_the_loop_goes_on_while_a_token_is_fetched() -> None:
    ask, go = Ask("async"), threading.Event()
    ask.source.before = lambda: go.wait(10)

    async def both() -> None:
        auth = HttpxVendedAuth(CREDENTIAL, ask.source)
        transport = httpx.MockTransport(ask._answer)
        async with httpx.AsyncClient(auth=auth, transport=transport) as client, anyio.create_task_group() as group:
            group.start_soon(client.get, ME)
            await anyio.to_thread.run_sync(wait_until, lambda: bool(ask.source.asked), "a token is asked for")
            go.set()  # had the loop been held up, nobody would come here

    anyio.run(both)
    assert ask.tokens == ["Bearer token-1"]
