"""The API front: a REST API of API Gateway with IAM authorization, on one machine.

Route, size, signature, event, invoke, answer: in that order, and with API Gateway's words for each refusal. What it does
not emulate: IAM's own decision (each local caller may call each route), throttling, and presigned URLs.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from local.api_caller import LocalCaller
from local.api_event import ApiLabels, Arrival, MalformedAnswer, RouteMatch, match_path, proxy_event, read_answer
from local.sigv4 import SignatureRefused, WireRequest, verify

if TYPE_CHECKING:
    from local.lambda_host import InvokeResult
    from local.template import Route

__all__ = ["LocalCaller", "api_front"]

MAX_PAYLOAD_BYTES = 10 * 1024 * 1024
MAX_EVENT_BYTES = 6 * 1024 * 1024
"""What Lambda takes in one synchronous invoke."""

INTEGRATION_TIMEOUT_SECONDS = 29.0

Invoke = Callable[[str, str | None, bytes], Awaitable["InvokeResult"]]


class _GatewayError(Exception):
    """An answer of API Gateway's own."""

    def __init__(self, status: int, error_type: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message


def _now() -> datetime:
    return datetime.now(UTC)


def api_front(
    routes: Iterable[Route],
    invoke: Invoke,
    callers: Mapping[str, LocalCaller],
    *,
    account_id: str,
    region: str,
    stage: str = "dev",
    timeout_seconds: float = INTEGRATION_TIMEOUT_SECONDS,
    now: Callable[[], datetime] = _now,
    pages: Iterable[web.RouteDef] = (),
) -> web.Application:
    """Answer the application that serves ``routes``.

    ``invoke(function, alias, event)`` runs a function; ``callers`` maps an access key id to who signs with it, and may
    change while the front runs; ``account_id``, ``region`` and ``stage`` label the API in events (a request may be
    signed for any region). ``pages`` are served beside the API to whoever asks, unsigned.
    """
    front = _Front(tuple(routes), invoke, callers, ApiLabels(account_id, region, stage), timeout_seconds, now)
    app = web.Application(client_max_size=MAX_PAYLOAD_BYTES)
    app.add_routes(pages)
    app.router.add_route("*", r"/{path:[\s\S]*}", front.answer)
    return app


@dataclass(frozen=True)
class _Front:
    routes: tuple[Route, ...]
    invoke: Invoke
    callers: Mapping[str, LocalCaller]
    labels: ApiLabels
    timeout_seconds: float
    now: Callable[[], datetime]

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request of a client."""
        arrival = Arrival(str(uuid.uuid4()), self.now(), request.remote or "127.0.0.1")
        try:
            response = await self._integrate(request, arrival)
        except _GatewayError as error:
            text = json.dumps({"message": error.message}, separators=(",", ":"))
            response = web.Response(status=error.status, body=text.encode(), content_type="application/json")
            response.headers["x-amzn-ErrorType"] = error.error_type
        response.headers["x-amzn-RequestId"] = arrival.request_id
        response.headers["x-amz-apigw-id"] = arrival.request_id
        return response

    async def _integrate(self, request: web.Request, arrival: Arrival) -> web.Response:
        route, match = self._route(request)
        wire = await _wire_request(request)
        caller = self._caller(wire, arrival.received_at)
        event = json.dumps(proxy_event(wire, match, caller, arrival, self.labels)).encode()
        if len(event) > MAX_EVENT_BYTES:
            raise _GatewayError(413, "RequestEntityTooLargeException", "Request Entity Too Large")
        try:
            async with asyncio.timeout(self.timeout_seconds):
                result = await self.invoke(route.function, route.alias, event)
        except TimeoutError as error:
            raise _GatewayError(504, "InternalServerErrorException", "Endpoint request timed out") from error
        if result.function_error is not None:
            raise _GatewayError(502, "InternalServerErrorException", "Internal server error")
        return _http_answer(result.payload)

    def _route(self, request: web.Request) -> tuple[Route, RouteMatch]:
        path = request.raw_path.partition("?")[0]
        for route in self.routes:
            match = match_path(route.path, path)
            if match is not None and route.method in (request.method, "ANY"):
                return route, match
        # REST APIs do not say which routes they have, whatever the signature.
        raise _GatewayError(403, "MissingAuthenticationTokenException", "Missing Authentication Token")

    def _caller(self, wire: WireRequest, now: datetime) -> LocalCaller:
        def secret_of(access_key_id: str) -> str | None:
            known = self.callers.get(access_key_id)
            return known.secret_access_key if known else None

        try:
            return self.callers[verify(wire, secret_of, now)]
        except SignatureRefused as refused:
            raise _GatewayError(403, refused.error_type, refused.message) from refused


async def _wire_request(request: web.Request) -> WireRequest:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise _GatewayError(413, "RequestEntityTooLargeException", "Request Entity Too Large") from error
    return WireRequest(request.method, request.raw_path, tuple(request.headers.items()), body)


def _http_answer(payload: bytes) -> web.Response:
    try:
        answer = read_answer(payload)
    except MalformedAnswer as error:
        raise _GatewayError(502, "InternalServerErrorException", "Internal server error") from error
    response = web.Response(status=answer.status, body=answer.body)
    for name, value in answer.headers:
        response.headers.add(name, value)
    response.headers.setdefault("Content-Type", "application/json")
    return response
