"""What the client's tests stand on: a source that counts, and an adapter that plays the servers at the other end."""

from __future__ import annotations

import io
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3
from requests.adapters import BaseAdapter

from imburse_auth.client import Vended, VendingFailed
from tests.fakes import BASE_URL, NOW

CREDENTIAL = "sandbox/tenant-a"
ME = BASE_URL + "/v1/identity/me"


def answer(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A vend's answer, as the functions give it. A change to None leaves the field out."""
    token = f"token-{number}"
    members = {
        "accessToken": token,
        "expires": int(NOW) + 1800,
        "expiresAt": "2021-02-26T15:03:20Z",
        "expiresIn": 1800,
        "tokenType": "Bearer",
        "credential": CREDENTIAL,
        "baseUrl": BASE_URL,
        "headers": {"Authorization": f"Bearer {token}", "x-account-id": "account-1", "x-tenant-id": "tenant-a"},
        **changes,
    }
    return {name: value for name, value in members.items() if value is not None}


class CountingSource:
    """Gives tokens `token-1`, `token-2`, ...; `before` runs at each request, and may raise or wait."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.asked: list[tuple[str, int, int]] = []
        self.before: Callable[[], object] = lambda: None
        self.most = 500
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:
        with self._lock:
            self.asked.append((credential, count, minimum_lifetime_seconds))
        self.before()
        with self._lock:
            numbers = [next(self._numbers) for _ in range(min(count, self.most))]
        return [Vended.from_answer(answer(number, **self.changes)) for number in numbers]


def failing(code: str = "upstream_unavailable", **fields: Any) -> Callable[[], None]:
    def fail() -> None:
        raise VendingFailed(code, "in this test", **fields)

    return fail


@dataclass
class Sent:
    """One request as it went over the wire: what it was at that moment, whatever becomes of the object."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


Play = Callable[[Sent], tuple[int, dict[str, str], bytes]]


def reply(status: int = 200, payload: Any = None, **headers: str) -> Play:
    body = payload if isinstance(payload, bytes) else json.dumps({} if payload is None else payload).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: (status, {"Content-Length": str(len(body)), **named}, body)


def unauthorized(code: str | None, **headers: str) -> Play:
    return reply(401, {"errors": [{"errorCode": code}]} if code else b"", **headers)


SPENT = unauthorized("ACCESS_TOKEN_ALREADY_USED")


@dataclass
class Wire(BaseAdapter):
    """Answers with `script`, one each, and 200 when it is empty. `sent` holds what was sent, `open` what nobody released."""

    script: list[Play] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    raws: list[urllib3.HTTPResponse] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        body: Any = request.body or b""
        if hasattr(body, "read"):
            body = body.read()
        elif not isinstance(body, (bytes, str)):
            body = b"".join(body)
        sent = Sent(
            str(request.method),
            str(request.url),
            {name: str(value) for name, value in request.headers.items()},
            body if isinstance(body, bytes) else body.encode(),
        )
        with self._lock:
            self.sent.append(sent)
            self.options.append(options)
            play = self.script.pop(0) if self.script else reply()
        status, headers, content = play(sent)
        response = requests.Response()
        response.status_code = status
        response.headers.update(headers)
        response.request, response.url = request, str(request.url)
        response.connection = self  # type: ignore[assignment]
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(content), headers=headers, status=status, preload_content=False, enforce_content_length=False
        )
        self.raws.append(response.raw)
        return response

    def close(self) -> None:
        """Nothing to close."""

    @property
    def tokens(self) -> list[str | None]:
        """The token of each request, None for one without."""
        return [request.headers.get("Authorization", "").removeprefix("Bearer ") or None for request in self.sent]

    def session(self) -> requests.Session:
        """A session whose every request ends here."""
        session = requests.Session()
        session.trust_env = False
        self.mount(session)
        return session

    def mount(self, session: requests.Session) -> None:
        session.mount("https://", self)
        session.mount("http://", self)
