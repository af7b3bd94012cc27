"""`httpx`, for clients and async clients: a fresh token for each request, and for nobody but the credential's own host.

httpx is not a dependency: whoever imports this module has it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator
from typing import Any

import anyio.to_thread
import httpx

from imburse_auth.client.httpx_peek import apeek, peek
from imburse_auth.client.sources import Source
from imburse_auth.client.spent import SPENT_CODES, is_spent
from imburse_auth.client.supply import Held, Misdirected, TokenSupply, check_origin, origin
from imburse_auth.credential import CredentialId

_OWN_HEADERS = ("Authorization", "x-account-id", "x-tenant-id")


class HttpxVendedAuth(httpx.Auth):
    """`httpx.Client(auth=HttpxVendedAuth("sandbox/tenant-a"))`, or `httpx.AsyncClient`.

    Arguments, what is tried again and what is raised are VendedAuth's; a body can be sent again if it is bytes, text, a
    form or JSON. An async client's loop is not held up: tokens are taken in a thread.

    With `follow_redirects`, which is off by default, a redirect within the host costs a second token, and one to another
    host raises Misdirected: httpx would take the token off there, and leave the account's id on.
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

    def base_url(self) -> str:
        """The credential's own base URL; the token taken to find out is the next request's. Raises VendingFailed."""
        return self._supply.base_url()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """As httpx.Client calls it. Raises VendingFailed or Misdirected."""
        held = self._put_token(request)
        request.extensions = {**request.extensions, "trace": _guarded(held, request.extensions.get("trace"))}
        resendable = isinstance(request.stream, httpx.ByteStream)
        response = yield request
        if resendable and _refused(response, held) and peek(response) and self._is_spent(response, held):
            self._put_token(response.request, held)
            yield response.request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """As httpx.AsyncClient calls it. Raises VendingFailed or Misdirected."""
        held = await anyio.to_thread.run_sync(self._put_token, request)
        request.extensions = {**request.extensions, "trace": _async_guarded(held, request.extensions.get("trace"))}
        resendable = isinstance(request.stream, httpx.ByteStream)
        response = yield request
        if resendable and _refused(response, held) and await apeek(response) and self._is_spent(response, held):
            await anyio.to_thread.run_sync(self._put_token, response.request, held)
            yield response.request

    def _put_token(self, request: httpx.Request, replacing: Held | None = None) -> Held:
        held = self._supply.take() if replacing is None else self._supply.replacement(replacing)
        try:
            check_origin(str(request.url), held.vended)
        except Misdirected:
            self._supply.give_back(held)
            raise
        for name in (*_OWN_HEADERS, *held.vended.headers):
            request.headers.pop(name, None)
        request.headers.update(held.vended.headers)
        return held

    def _is_spent(self, response: httpx.Response, held: Held) -> bool:
        past_expiry = held.until_seconds <= self._clock()
        return is_spent(response.status_code, response.content, codes=self._spent_codes, past_expiry=past_expiry)


def _refused(response: httpx.Response, held: Held) -> bool:
    return response.status_code == 401 and origin(str(response.request.url)) == origin(held.vended.base_url)


# httpx builds the request that follows a redirect itself and asks no auth about it, but passes it the extensions of the first.
# `trace` among them is called before each request's headers are sent: the one place where they can be held back.


def _guarded(held: Held, trace: Callable[[str, Any], None] | None) -> Callable[[str, Any], None]:
    def guard(event: str, info: Any) -> None:  # noqa: ANN401 - httpcore's
        _check_event(event, info, held)
        if trace is not None:
            trace(event, info)

    return guard


def _async_guarded(
    held: Held, trace: Callable[[str, Any], Awaitable[None]] | None
) -> Callable[[str, Any], Awaitable[None]]:
    async def guard(event: str, info: Any) -> None:  # noqa: ANN401 - httpcore's
        _check_event(event, info, held)
        if trace is not None:
            await trace(event, info)

    return guard


def _check_event(event: str, info: Any, held: Held) -> None:  # noqa: ANN401 - httpcore's
    """Raises Misdirected if a request is about to take one of the headers to another host."""
    if not event.endswith(".send_request_headers.started"):
        return
    request = info["request"]
    own = {name.lower().encode() for name in (*_OWN_HEADERS, *held.vended.headers)}
    if own & {name.lower() for name, _ in request.headers}:
        url = request.url
        port = f":{url.port}" if url.port is not None else ""
        check_origin(f"{url.scheme.decode()}://{url.host.decode()}{port}", held.vended)
