"""Stands between the functions and the embedded AWS, and fails one of its services on demand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Literal

import aiohttp
from aiohttp import web

from local.serving import base_url, bind, serving

Service = Literal["DynamoDB", "secretsmanager"]
How = Literal["stall", "errors", "hang up"]

STALL_SECONDS = 3.0
_ERRORS: Mapping[Service, tuple[tuple[int, str], ...]] = {
    "DynamoDB": ((500, "InternalServerError"), (400, "ProvisionedThroughputExceededException")),
    "secretsmanager": ((500, "InternalServiceError"), (400, "ThrottlingException")),
}
_TO_AWS = ("Authorization", "X-Amz-Target", "X-Amz-Date", "X-Amz-Security-Token", "Content-Type", "User-Agent")
_FROM_AWS = ("x-amz-crc32", "x-amzn-RequestId", "x-amzn-ErrorType", "Content-Type")


class AwsProxy:
    """`targets` says where each service is, to be set before the first call; `faults` which fails how, from any thread.

    Of the calls that stall or are hung up on, every other one has had its effect: nobody can tell from outside.
    """

    def __init__(self) -> None:
        self._listener = bind(0)
        self.url = base_url(self._listener)
        self.targets: dict[str, str] = {}
        self.faults: dict[Service, How] = {}
        self.served = 0
        self.spoilt = 0
        self._every_other = itertools.cycle((True, False))

    def serving(self) -> AbstractAsyncContextManager[str]:
        """The context in which it serves, for `in_background`."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.add_routes([web.post("/", self._answer)])
        app.cleanup_ctx.append(self._connect)
        return serving(app, self._listener)

    async def _connect(self, app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            yield

    async def _answer(self, request: web.Request) -> web.Response:
        self.served += 1
        service = request.headers.get("X-Amz-Target", "").partition(".")[0].partition("_")[0]
        fault = next(((name, how) for name, how in self.faults.items() if name == service), None)
        if fault is None:
            return await self._forward(request, service)
        self.spoilt += 1
        name, how = fault
        if how == "errors":
            status, code = _ERRORS[name][self.spoilt % 2]
            return web.json_response({"__type": code, "message": "Answered on demand."}, status=status)
        answer = await self._forward(request, service) if next(self._every_other) else web.Response(status=500)
        if how == "stall":
            await asyncio.sleep(STALL_SECONDS)
        elif request.transport is not None:
            request.transport.abort()
        return answer

    async def _forward(self, request: web.Request, service: str) -> web.Response:
        headers = {name: request.headers[name] for name in _TO_AWS if name in request.headers}
        async with self._session.post(self.targets[service], data=await request.read(), headers=headers) as answer:
            kept = {name: answer.headers[name] for name in _FROM_AWS if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)
