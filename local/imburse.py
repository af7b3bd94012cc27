"""The Imburse emulator: strict where the vendor is strict, faulty on demand, and countable.

Vendor side (protocol.md): ``POST /v1/identity/hmac``, ``GET /v1/identity/me`` and the keys of a tenant (imburse_management).
Control side, for tests and demos:

====================================  =========================================================================
``POST /control/keys``                ``{publicKey, privateKey, accountId, tenantId?, roles?, name?}`` -> 201
``GET /control/keys``                 ``{"keys": [...]}`` without private keys
``DELETE /control/keys/{publicKey}``  204; the key is revoked at once
``POST /control/faults``              ``{kind, path?, method?, times?, ...}`` (imburse_faults.Fault) -> 201
``GET /control/faults``               ``{"faults": [...]}``
``DELETE /control/faults``            204; everything works again
``GET /control/statistics``           imburse_statistics.Statistics
``POST /control/reset``               204; no faults, nonces, tokens and statistics; the keys stay
====================================  =========================================================================

Nothing here writes a log line, so none can hold a key or a token.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from typing import Any

from aiohttp import web

from local.imburse_errors import InvalidDocument, Refusal
from local.imburse_faults import Fault, FaultBox, Turn
from local.imburse_hmac import HmacGate
from local.imburse_keys import ImburseKey, KeyRegistry, require_scope
from local.imburse_management import delete_key, make_key, tenant_keys
from local.imburse_spoil import spoil
from local.imburse_statistics import Statistics
from local.imburse_tokens import IssuedToken, TokenMint

__all__ = ["Fault", "Imburse", "ImburseKey"]

MAX_BODY_BYTES = 1024 * 1024

_HTTP_CODES = {404: "ROUTE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TURN = web.RequestKey("turn", Turn)


class Imburse:
    """One emulated Imburse environment. ``clock`` answers seconds since the epoch."""

    def __init__(self, keys: Iterable[ImburseKey] = (), *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.keys = KeyRegistry(keys)
        self.faults = FaultBox()
        self.statistics = Statistics()
        self._gate = HmacGate(self.keys, self.now)
        self._mint = TokenMint(self.now)

    def now(self) -> float:
        """Answer the emulator's own idea of the time, which the clock fault shifts."""
        return self._clock() + self.faults.clock_shift_seconds

    def authenticate(self, authorization: list[str], body: bytes) -> ImburseKey:
        """Check an Hmac header and use its nonce up. Raises Refusal."""
        self.statistics.exchange_requests += 1
        key = self._gate.check(authorization, body)
        self.statistics.nonces_accepted += 1
        return key

    def issue(self, key: ImburseKey, *, same_again: bool = False) -> IssuedToken:
        """Issue a token for an authenticated key; ``same_again`` repeats the last one if there is one."""
        token = (self._mint.repeat(key) if same_again else None) or self._mint.issue(key)
        self.statistics.count_issued(token.value)
        return token

    def me(self, authorization: list[str], account_id: str | None, tenant_id: str | None) -> dict[str, Any]:
        """Answer the accounts and tenants that a token reaches, using the token up. Raises Refusal.

        The token is spent before the headers are judged: a request that was turned away used it all the same.
        """
        self.statistics.identity_requests += 1
        key = self.bearer(authorization, account_id, tenant_id)
        reached = [other for other in self.keys if other.account_id == key.account_id]
        tenants = {key.tenant_id} if key.tenant_id else {other.tenant_id for other in reached if other.tenant_id}
        return {
            "accounts": [{"accountId": key.account_id}],
            "tenants": [{"tenantId": tenant, "accountId": key.account_id} for tenant in sorted(tenants)],
        }

    def bearer(self, authorization: list[str], account_id: str | None, tenant_id: str | None) -> ImburseKey:
        """Use a token up and answer the key that it is of. Raises Refusal, also if the scope headers do not fit the key."""
        key = self.keys.require(self._mint.spend(authorization))
        self.statistics.tokens_used += 1
        require_scope(key, account_id, tenant_id)
        return key

    def reset(self) -> None:
        """Forget faults, nonces, tokens and statistics; keep the keys."""
        self.faults.clear()
        self._gate.forget()
        self._mint.forget()
        self.statistics = Statistics()

    def app(self) -> web.Application:
        """Answer the HTTP face of the emulator."""
        app = web.Application(middlewares=[self._face], client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/identity/hmac", self._post_hmac),
                web.get("/v1/identity/me", self._get_me),
                web.post("/v1/tenant/{tenant_id}/keys", self._post_tenant_key),
                web.get("/v1/tenant/{tenant_id}/keys", self._get_tenant_keys),
                web.delete("/v1/tenant/{tenant_id}/keys/{public_key}", self._delete_tenant_key),
                web.post("/control/keys", self._post_key),
                web.get("/control/keys", self._get_keys),
                web.delete("/control/keys/{public_key}", self._delete_key),
                web.post("/control/faults", self._post_fault),
                web.get("/control/faults", self._get_faults),
                web.delete("/control/faults", self._delete_faults),
                web.get("/control/statistics", self._get_statistics),
                web.post("/control/reset", self._post_reset),
            ]
        )
        return app

    @web.middleware
    async def _face(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Give every answer its correlation id, its date and, where it failed, the vendor's error body."""
        turn = Turn() if request.path.startswith("/control/") else self.faults.take_turn(request.path, request.method)
        request[_TURN] = turn
        correlation_id = _correlation_id(request)
        try:
            if turn.latency_seconds > 0:
                await request.read()  # it has arrived, and has its effect also if the caller is gone by then
                await asyncio.sleep(turn.latency_seconds)
            response = await handler(request)
        except Refusal as refusal:
            response = self._refused(refusal, correlation_id)
        except web.HTTPException as error:
            code = _HTTP_CODES.get(error.status, f"HTTP_{error.status}")
            asked = Refusal(error.status, code, "{method} {path}", method=request.method, path=request.path)
            response = self._refused(asked, correlation_id)
        response.headers["X-Correlation-ID"] = correlation_id
        response.headers["Date"] = formatdate(self.now(), usegmt=True)
        if turn.answer is None:
            return response
        self.statistics.faults_served += 1
        return await spoil(request, response, turn.answer, self._refused, correlation_id)

    def _refused(self, refusal: Refusal, correlation_id: str) -> web.Response:
        self.statistics.refusals[refusal.code] += 1
        body = refusal.body(timestamp=int(self.now()), correlation_id=correlation_id)
        return web.json_response(body, status=refusal.status)

    async def _post_hmac(self, request: web.Request) -> web.Response:
        key = self.authenticate(request.headers.getall("Authorization", []), await request.read())
        if request[_TURN].refuses:
            return web.Response()  # `spoil` puts the refusal in its place; what counts is that no token was issued.
        token = self.issue(key, same_again=request[_TURN].same_token)
        return web.json_response({"accessToken": token.value, "expires": token.expires})

    async def _get_me(self, request: web.Request) -> web.Response:
        headers = request.headers
        reached = self.me(headers.getall("Authorization", []), headers.get("x-account-id"), headers.get("x-tenant-id"))
        return web.json_response(reached)

    async def _post_tenant_key(self, request: web.Request) -> web.Response:
        manager = self._bearer_of(request)
        try:
            document = await _json_object(request)
            if request[_TURN].refuses:
                return web.Response()  # `spoil` puts in its place what the fault says; no key was made
            made = make_key(self.keys, manager, request.match_info["tenant_id"], document)
        except InvalidDocument as error:
            raise Refusal(400, "KEY_IS_INVALID", "{reason}", reason=str(error)) from error
        self.statistics.keys_made += 1
        return web.json_response(made, status=201)

    async def _get_tenant_keys(self, request: web.Request) -> web.Response:
        manager = self._bearer_of(request)
        return web.json_response({"keys": tenant_keys(self.keys, manager, request.match_info["tenant_id"])})

    async def _delete_tenant_key(self, request: web.Request) -> web.Response:
        manager = self._bearer_of(request)
        if not request[_TURN].refuses:
            delete_key(self.keys, manager, request.match_info["tenant_id"], request.match_info["public_key"])
            self.statistics.keys_deleted += 1
        return web.Response(status=204)

    def _bearer_of(self, request: web.Request) -> ImburseKey:
        headers = request.headers
        return self.bearer(headers.getall("Authorization", []), headers.get("x-account-id"), headers.get("x-tenant-id"))

    async def _post_key(self, request: web.Request) -> web.Response:
        try:
            key = ImburseKey.from_json(await _json_object(request))
        except InvalidDocument as error:
            raise Refusal(400, "KEY_IS_INVALID", "{reason}", reason=str(error)) from error
        self.keys.add(key)
        return web.json_response(key.public_json(), status=201)

    async def _get_keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [key.public_json() for key in self.keys]})

    async def _delete_key(self, request: web.Request) -> web.Response:
        public_key = request.match_info["public_key"]
        if not self.keys.revoke(public_key):
            raise Refusal(404, "API_KEY_NOT_FOUND", "The API key {publicKey} is not known.", publicKey=public_key)
        return web.Response(status=204)

    async def _post_fault(self, request: web.Request) -> web.Response:
        try:
            fault = Fault.from_json(await _json_object(request))
        except InvalidDocument as error:
            raise Refusal(400, "FAULT_IS_INVALID", "{reason}", reason=str(error)) from error
        self.faults.add(fault)
        return web.json_response(fault.as_json(), status=201)

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response({"faults": [fault.as_json() for fault in self.faults.active()]})

    async def _delete_faults(self, _request: web.Request) -> web.Response:
        self.faults.clear()
        return web.Response(status=204)

    async def _get_statistics(self, _request: web.Request) -> web.Response:
        return web.json_response(self.statistics.as_json())

    async def _post_reset(self, _request: web.Request) -> web.Response:
        self.reset()
        return web.Response(status=204)


def _correlation_id(request: web.Request) -> str:
    """Answer the caller's id if it is fit to be repeated, else one of our own in the vendor's style."""
    given = request.headers.get("X-Correlation-ID", "")
    if 0 < len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    return f"0H{secrets.token_hex(5).upper()}:00000001"


async def _json_object(request: web.Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.read())
    except ValueError:
        # `from None`: the cause holds the text it could not read, and that may be a key.
        raise InvalidDocument("the body must be JSON") from None
    if not isinstance(document, dict):
        raise InvalidDocument("the body must be an object")
    return document
