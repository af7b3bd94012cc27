"""Spoiling an answer of the Imburse emulator the way a fault asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from local.imburse_errors import Refusal
from local.imburse_faults import Fault

_Refused = Callable[[Refusal, str], web.Response]


async def spoil(
    request: web.Request, answer: web.StreamResponse, fault: Fault, refused: _Refused, correlation_id: str
) -> web.StreamResponse:
    """Answer what the client gets in the place of ``answer``. ``refused`` builds the vendor's error body."""
    if fault.kind == "status":
        code = fault.error_code or f"FAULT_{fault.status}"
        spoilt = refused(Refusal(fault.status, code, "Answered on demand."), correlation_id)
        if fault.retry_after is not None:
            spoilt.headers["Retry-After"] = fault.retry_after
    elif fault.kind == "redirect":
        spoilt = web.Response(status=fault.status, headers={"Location": fault.location})
    elif fault.kind == "garbage":
        spoilt = web.Response(body=b'{"accessToken": \xff\xfe', content_type="application/json")
    elif fault.kind == "oversized":
        spoilt = _padded(answer, fault.size_bytes)
    elif fault.kind == "drop_mid_body":
        return await _half_sent(request, answer)
    elif fault.kind == "drip":
        return await _dripped(request, answer, fault.seconds)
    else:
        if request.transport is not None:
            request.transport.abort()
        return answer  # Nobody is there to read it.
    spoilt.headers["X-Correlation-ID"] = correlation_id
    spoilt.headers["Date"] = answer.headers["Date"]
    return spoilt


def _body(answer: web.StreamResponse) -> bytes:
    return answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""


def _padded(answer: web.StreamResponse, size_bytes: int) -> web.Response:
    """Answer the same JSON after a lot of white space: valid, so only a limit on the size can refuse it."""
    body = _body(answer)
    return web.Response(
        status=answer.status, body=b" " * (size_bytes - len(body)) + body, content_type="application/json"
    )


async def _half_sent(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    body = _body(answer)
    half = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
    half.content_length = len(body) + 1
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half


async def _dripped(request: web.Request, answer: web.StreamResponse, pause_seconds: float) -> web.StreamResponse:
    body = _body(answer)
    dripping = web.StreamResponse(status=answer.status, headers=answer.headers)
    dripping.content_length = len(body)
    with suppress(ConnectionError):  # nobody need wait for the end of it
        await dripping.prepare(request)
        for byte in body:
            await dripping.write(bytes([byte]))
            await asyncio.sleep(pause_seconds)
    return dripping
