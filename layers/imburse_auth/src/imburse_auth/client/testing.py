"""A vending machine and an Imburse for your own tests: no network, no AWS, no key.

In your `conftest.py`:

    from imburse_auth.client.testing import fake_vending  # noqa: F401 - a fixture

and in a test:

    def test_a_payout_is_asked_for_once(fake_vending):
        fake_vending.answer("POST", "/v1/payouts", {"id": "payout-1"}, status=201)
        pay_out()  # your code, with requests.post(..., auth=VendedAuth("sandbox/tenant-a"))
        [call] = fake_vending.calls
        assert (call.credential, call.body) == ("sandbox/tenant-a", b'{"amount": 100}')
        fake_vending.check_each_call_used_its_own_token()

While the fixture is in force every VendedAuth, whenever it was made, takes its tokens here, and what `requests` sends to
`fake_vending.base_url` ends here. Without pytest: `VendedAuth(..., source=fake)`, `session.mount(fake.base_url, fake.adapter)`.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter

from imburse_auth.client import sources
from imburse_auth.client.failed import VendingFailed
from imburse_auth.client.vended import Vended
from imburse_auth.credential import CredentialId

if TYPE_CHECKING:
    import httpx

try:
    import pytest
except ImportError:  # the double itself does without
    pytest = None  # type: ignore[assignment]

LIFETIME_SECONDS = 1800
_STATUS = {
    "invalid_request": 400,
    "not_authorized": 403,
    "credential_not_found": 404,
    "over_budget": 429,
    "credential_misconfigured": 500,
    "internal_error": 500,
    "upstream_rejected": 502,
    "upstream_protocol": 502,
}
"""Codes that are not here have status 503."""


@dataclass(frozen=True)
class Asked:
    """What was asked of the vending machine, once."""

    credential: str
    count: int
    minimum_lifetime_seconds: int


@dataclass(frozen=True)
class Call:
    """A request that reached the fake Imburse, and the status it got; `credential` is None without a token from here."""

    method: str
    path: str
    body: bytes
    status: int
    credential: str | None
    access_token: str | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)


@dataclass
class _Issued:
    credential: str
    expires: float
    used: bool = False


class FakeVending:
    """A source of made-up tokens, and the Imburse that takes each of them once and answers 401 to any other.

    `asked` holds each request for tokens, `calls` each request to the API, in order. One object serves all threads.
    """

    def __init__(self, base_url: str = "https://imburse.test", *, lifetime_seconds: int = LIFETIME_SECONDS) -> None:
        self.base_url = base_url
        self.lifetime_seconds = lifetime_seconds
        self.asked: list[Asked] = []
        self.calls: list[Call] = []
        self.adapter = _Adapter(self)
        self._issued: dict[str, _Issued] = {}
        self._failures: list[VendingFailed] = []
        self._answers: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._lock = threading.Lock()

    def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:
        """As many tokens as asked for, or the failure that was ordered with `fail`."""
        CredentialId.parse(credential)
        with self._lock:
            self.asked.append(Asked(credential, count, minimum_lifetime_seconds))
            if self._failures:
                raise self._failures.pop(0)
            return [self._issue(credential) for _ in range(count)]

    def fail(self, code: str, *, times: int = 1, retry_after_seconds: float | None = None) -> None:
        """Let the next requests for tokens fail with a code of the error table, such as `not_authorized`."""
        status = _STATUS.get(code, 503)
        failure = VendingFailed(
            code,
            "ordered by the test",
            status=status,
            retryable=status in (429, 503),
            retry_after_seconds=retry_after_seconds,
            request_id="fake-request",
        )
        with self._lock:
            self._failures += [failure.again() for _ in range(times)]

    def expire(self) -> None:
        """Let every token that was given out so far be expired."""
        with self._lock:
            for issued in self._issued.values():
                issued.expires = 0

    def answer(self, method: str, path: str, payload: object = None, *, status: int = 200) -> None:
        """What the API answers to a request with a good token, as JSON; 200 and `{}` where nothing was said."""
        self._answers[method.upper(), path] = (status, json.dumps(payload).encode())

    def by_httpx(self, request: httpx.Request) -> httpx.Response:
        """The fake Imburse for httpx: `httpx.Client(transport=httpx.MockTransport(fake.by_httpx), auth=...)`."""
        import httpx

        headers = {name.title(): value for name, value in request.headers.items()}
        status, body = self._answer_to(request.method, request.url.path, headers, request.content)
        return httpx.Response(status, content=body, headers={"Content-Type": "application/json"})

    def check_each_call_used_its_own_token(self) -> None:
        """Raises AssertionError if a call came without a token of ours, or with one that another had used."""
        seen: set[str] = set()
        for number, call in enumerate(self.calls, 1):
            token = call.access_token
            if token is None or token in seen or call.credential is None:
                raise AssertionError(f"call {number}, {call.method} {call.path}, did not have a token of its own")
            seen.add(token)

    def _issue(self, credential: str) -> Vended:
        token = f"fake-{secrets.token_urlsafe(24)}"
        expires = int(time.time()) + self.lifetime_seconds
        self._issued[token] = _Issued(credential, expires)
        headers = {"Authorization": f"Bearer {token}", "x-account-id": "fake-account", "x-tenant-id": "fake-tenant"}
        return Vended(credential, expires, self.base_url, headers, token, self.lifetime_seconds)

    def _answer_to(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Judge the token as Imburse does, use it up, and note the call."""
        authorization = headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ") if authorization.startswith("Bearer ") else None
        with self._lock:
            issued = self._issued.get(token or "")
            refusal = _refusal(issued, token)
            if refusal is None:
                status, payload = self._answers.get((method, path), (200, b"{}"))
            else:
                status, payload = 401, json.dumps({"errors": [{"errorCode": refusal}]}).encode()
            if issued is not None:
                issued.used = True
            credential = issued.credential if issued else None
            self.calls.append(Call(method, path, body, status, credential, token, headers))
        return status, payload


def _refusal(issued: _Issued | None, token: str | None) -> str | None:
    if token is None:
        return "ACCESS_TOKEN_IS_REQUIRED"
    if issued is None:
        return "ACCESS_TOKEN_NOT_RECOGNISED"
    if issued.expires <= time.time():
        return "ACCESS_TOKEN_EXPIRED"
    return "ACCESS_TOKEN_ALREADY_USED" if issued.used else None


def _body(request: requests.PreparedRequest) -> bytes:
    body: Any = request.body
    if hasattr(body, "read"):
        body = body.read()
    elif isinstance(body, (bytearray, memoryview)):
        body = bytes(body)
    elif body is not None and not isinstance(body, (str, bytes)):
        body = b"".join(body)
    return body.encode() if isinstance(body, str) else body or b""


class _Adapter(BaseAdapter):
    def __init__(self, fake: FakeVending) -> None:
        super().__init__()
        self._fake = fake

    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:  # type: ignore[override]  # noqa: ANN401
        asked = {name: str(value) for name, value in request.headers.items()}
        path = urlsplit(request.url or "").path
        status, body = self._fake._answer_to(str(request.method), path, asked, _body(request))  # noqa: SLF001 - its other half
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        response = requests.Response()
        response.status_code = status
        response.headers.update(headers)
        response.request, response.url = request, request.url or ""
        response.connection = self  # type: ignore[assignment]  # as HTTPAdapter does: a second try goes the same way
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), headers=headers, status=status, preload_content=False)
        return response

    def close(self) -> None:
        pass


def _in_force(fake: FakeVending) -> Iterator[FakeVending]:
    """Every VendedAuth takes its tokens from `fake`, and every requests session meets it at its base URL."""
    get_adapter = requests.Session.get_adapter

    def adapter(session: requests.Session, url: str | bytes) -> BaseAdapter:
        if isinstance(url, str) and url.startswith(fake.base_url + "/"):
            return fake.adapter
        return get_adapter(session, url)  # type: ignore[arg-type]

    with mock.patch.object(sources, "stand_in", fake), mock.patch.object(requests.Session, "get_adapter", adapter):
        yield fake


if pytest is not None:

    @pytest.fixture
    def fake_vending() -> Iterator[FakeVending]:
        """A FakeVending that is in force for the test."""
        yield from _in_force(FakeVending())
