"""`requests`: a fresh token for each request, and for nobody but the credential's own host."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase
from requests.sessions import SessionRedirectMixin
from requests.utils import requote_uri

from imburse_auth.client.sources import Source
from imburse_auth.client.spent import MAX_BODY_BYTES, SPENT_CODES, is_spent
from imburse_auth.client.supply import Held, Misdirected, TokenSupply, check_origin, origin
from imburse_auth.credential import CredentialId

_OWN_HEADERS = ("Authorization", "x-account-id", "x-tenant-id")
_KEEP_BODY = (307, 308)  # what redirects a body along with the request
TIMEOUT_SECONDS = 30


class VendedAuth(AuthBase):
    """`session.auth = VendedAuth("sandbox/tenant-a")`: each request goes out with a token of its own and the right headers.

    `source` is the environment's if none is given (source_from_env, asked at the first request). `ahead` tokens are taken at
    a time, each used once; `minimum_lifetime_seconds` and `margin_seconds` as in TokenSupply. A 401 whose code is one of
    `spent_codes` is tried once more with a new token, if the body can be sent again: text, bytes, or a file that can be
    rewound. The answer's `history` then holds the first one.

    One object serves all threads and survives a fork. A request raises VendingFailed if there is no token for it, and
    Misdirected if it is for another host than the credential's. A redirect to another host is followed without any of the
    headers, or raises Misdirected if the body would be sent there too; one within the host is followed with a new token.
    """

    def __init__(
        self,
        credential: str | CredentialId,
        source: Source | None = None,
        *,
        ahead: int = 1,
        minimum_lifetime_seconds: int = 300,
        margin_seconds: float = 60,
        spent_codes: Collection[str] = SPENT_CODES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._supply = TokenSupply(
            credential,
            source,
            ahead=ahead,
            minimum_lifetime_seconds=minimum_lifetime_seconds,
            margin_seconds=margin_seconds,
            clock=clock,
        )
        self._spent_codes = frozenset(spent_codes)
        self._clock = clock

    def __repr__(self) -> str:
        return f"VendedAuth({self._supply.credential!r})"

    def base_url(self) -> str:
        """The credential's own base URL; the token taken to find out is the next request's. Raises VendingFailed."""
        return self._supply.base_url()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Put a token on a request that is about to be sent, once. Raises VendingFailed or Misdirected."""
        held = self._put_token(request)
        answered = partial(self._answered, held, _position(request.body))
        request.register_hook("response", answered)  # type: ignore[no-untyped-call]
        return request

    def _put_token(self, request: requests.PreparedRequest, replacing: Held | None = None) -> Held:
        held = self._supply.take() if replacing is None else self._supply.replacement(replacing)
        try:
            check_origin(request.url or "", held.vended)
        except Misdirected:
            self._supply.give_back(held)
            raise
        _strip(request, held)
        request.headers.update(held.vended.headers)
        return held

    def _answered(
        self,
        held: Held,
        position: int | None,
        response: requests.Response,
        **sending: Any,  # noqa: ANN401
    ) -> requests.Response:
        """The hook: requests calls it for each answer, also those of requests that a redirect made of this one."""
        asked = response.request
        try:
            if self._wants_another(held, response, stream=bool(sending.get("stream"))):
                response = self._again(held, response, position, sending)
            if response.is_redirect:
                self._redirected(held, asked, response)
        except BaseException:
            response.close()
            raise
        return response

    def _wants_another(self, held: Held, response: requests.Response, *, stream: bool) -> bool:
        request = response.request
        carried = request.headers.get("Authorization")
        if response.status_code != 401 or carried is None or origin(request.url or "") != origin(held.vended.base_url):
            return False
        length = response.headers.get("Content-Length", "")
        # An answer that is streamed belongs to the caller: only a short one is read here, and can still be read there.
        readable = not stream or (length.isascii() and length.isdigit() and int(length[:10]) <= MAX_BODY_BYTES)
        past_expiry = carried == held.vended.headers["Authorization"] and held.until_seconds <= self._clock()
        body = response.content if readable else b""
        return is_spent(response.status_code, body, codes=self._spent_codes, past_expiry=past_expiry)

    def _again(
        self, held: Held, response: requests.Response, position: int | None, sending: dict[str, Any]
    ) -> requests.Response:
        request = response.request.copy()
        if not _rewound(request, position):
            return response
        self._put_token(request, replacing=held)
        response.content  # noqa: B018 - read to its end, so that its connection can be used again
        response.close()
        started = time.perf_counter()
        again: requests.Response = response.connection.send(request, **sending)
        again.elapsed = type(response.elapsed)(seconds=time.perf_counter() - started)
        again.history.append(response)
        again.request = request
        return again

    def _redirected(self, held: Held, asked: requests.PreparedRequest, response: requests.Response) -> None:
        """Prepare what requests copies the next request from: the one that was asked first.

        requests takes Authorization off at another host and leaves the other headers on; and at the same host it would
        send the spent token again.
        """
        _strip(asked, held)
        target = SessionRedirectMixin().get_redirect_target(response) or ""
        # Found as requests finds it, so that both mean the same host.
        url = urljoin(response.url, requote_uri(target))
        if response.status_code in _KEEP_BODY and asked.body is not None:
            check_origin(url, held.vended)
        if {origin(asked.url or ""), origin(url)} == {origin(held.vended.base_url)}:
            # Whether it will be followed is not to be seen from here: if not, this token expires unused.
            asked.headers.update(self._supply.take().vended.headers)


class VendedSession(requests.Session):
    """A session whose requests may leave out the credential's base URL: `VendedSession("sandbox/tenant-a").get("/v1/...")`.

    Options as for VendedAuth, besides `timeout_seconds`, which holds where a request names none. Raises as VendedAuth does.
    """

    # What requests takes along into a copy.
    __attrs__ = [*requests.Session.__attrs__, "_timeout_seconds", "_vended"]  # noqa: RUF012

    def __init__(
        self,
        credential: str | CredentialId,
        source: Source | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        self._vended = self.auth = VendedAuth(credential, source, **options)
        self._timeout_seconds = timeout_seconds

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **options: Any) -> requests.Response:  # noqa: ANN401
        """As requests' own, with a path that begins with `/` meant for the credential's base URL."""
        if isinstance(url, str) and url.startswith("/"):
            url = self._vended.base_url() + url
        options.setdefault("timeout", self._timeout_seconds)
        return super().request(method, url, *args, **options)


def _strip(request: requests.PreparedRequest, held: Held) -> None:
    for name in (*_OWN_HEADERS, *held.vended.headers):
        request.headers.pop(name, None)


def _position(body: Any) -> int | None:  # noqa: ANN401 - whatever requests takes for a body
    try:
        position = body.tell()
    except (AttributeError, OSError, ValueError):
        return None
    return position if isinstance(position, int) else None


def _rewound(request: requests.PreparedRequest, position: int | None) -> bool:
    """Whether the body can be sent again; a file then stands where it stood at first."""
    body: Any = request.body
    if body is None or isinstance(body, (bytes, str, bytearray, memoryview)):
        return True
    if position is None:
        return False
    try:
        body.seek(position)
    except (AttributeError, OSError, ValueError):
        return False
    return True
