"""The Lambda Runtime API (2018-06-01), as AWS's runtime client expects it.

The runtime client takes a host and a port only, so each execution environment gets a port of its own: that tells them apart.
Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web

from local.lambda_types import MAX_ANSWER_BYTES, Invocation, Outcome

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader
    from aiohttp.web_protocol import RequestHandler

_PREFIX = "/2018-06-01/runtime/"
_MAX_ERROR_HEADER_BYTES = 2 * 1024 * 1024  # the runtime sends up to 1 MiB of traceback in a header
_GRACE_SECONDS = 0.01  # the runtime is dead when we close, and aiohttp takes 0 for "for ever"
_ACCEPTED = b'{"status":"OK"}'


class NotTakenError(Exception):
    """The process ended before it took the invocation: none of the function's code ran, so another one may take it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__("the process ended before it took the invocation")
        self.outcome = outcome


class RuntimeApi:
    """Serves one environment, one invocation at a time.

    `initialised` becomes None when the runtime first asks for work, or the outcome of a failed init.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.initialised: asyncio.Future[Outcome | None] = loop.create_future()
        self._next: asyncio.Queue[tuple[Invocation, int]] = asyncio.Queue()
        self._request_id: str | None = None
        self._outcome: asyncio.Future[Outcome] | None = None
        self._web_server = web.Server(
            self._handle,
            request_factory=self._request,
            handler_cancellation=True,  # a runtime that died no longer waits for work
            access_log=None,
            max_field_size=_MAX_ERROR_HEADER_BYTES,
            keepalive_timeout=24 * 3600,
        )
        self._server: asyncio.Server | None = None

    async def listen(self) -> str:
        """Starts to listen on a free port; returns host:port for AWS_LAMBDA_RUNTIME_API."""
        self._server = await asyncio.get_running_loop().create_server(self._web_server, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._web_server.shutdown(timeout=_GRACE_SECONDS)

    async def invoke(self, invocation: Invocation, timeout_seconds: float) -> Outcome:
        """Hands the invocation to the runtime and waits for its answer.

        Raises TimeoutError after the function's timeout, NotTakenError.
        """
        self._request_id = invocation.request_id
        self._outcome = asyncio.get_running_loop().create_future()
        self._next.put_nowait((invocation, int((time.time() + timeout_seconds) * 1000)))
        async with asyncio.timeout(timeout_seconds):
            return await self._outcome

    def exited(self, reason: str) -> None:
        """Tells that the process ended, so that nobody waits for an answer of it."""
        request_id = self._request_id or ""
        outcome = Outcome.unhandled("Runtime.ExitError", f"RequestId: {request_id} Error: Runtime {reason}")
        if not self.initialised.done():
            self.initialised.set_result(outcome)
        if self._outcome is not None and not self._outcome.done():
            if self._next.empty():
                self._outcome.set_result(outcome)
            else:
                self._outcome.set_exception(NotTakenError(outcome))

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_ANSWER_BYTES)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        operation = request.path.removeprefix(_PREFIX)
        if operation == "invocation/next" and request.method == "GET":
            return await self._give_next()
        if request.method != "POST":
            return web.Response(status=404)
        if operation == "init/error":
            return await self._take_init_error(request)
        kind, _, rest = operation.partition("/")
        request_id, _, verb = rest.partition("/")
        if kind != "invocation" or verb not in {"response", "error"}:
            return web.Response(status=404)
        return await self._take_outcome(request, request_id, None if verb == "response" else "Unhandled")

    async def _give_next(self) -> web.Response:
        if not self.initialised.done():
            self.initialised.set_result(None)
        invocation, deadline_ms = await self._next.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id,
        }
        if invocation.client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        return web.Response(body=invocation.payload, content_type="application/json", headers=headers)

    async def _take_init_error(self, request: web.BaseRequest) -> web.Response:
        payload = await request.read()
        if not self.initialised.done():
            self.initialised.set_result(Outcome(payload, "Unhandled"))
        return web.Response(status=202, body=_ACCEPTED)

    async def _take_outcome(self, request: web.BaseRequest, request_id: str, error: str | None) -> web.Response:
        try:
            outcome = Outcome(await request.read(), error)
            status, answer = 202, _ACCEPTED
        except web.HTTPRequestEntityTooLarge:
            outcome = Outcome.unhandled(
                "Function.ResponseSizeTooLarge",
                f"Response payload size exceeded maximum allowed payload size ({MAX_ANSWER_BYTES} bytes).",
            )
            status, answer = 413, b'{"errorType":"RequestEntityTooLarge"}'
        if request_id != self._request_id or self._outcome is None or self._outcome.done():
            return web.Response(status=400, body=b'{"errorType":"InvalidRequestID"}')
        self._outcome.set_result(outcome)
        return web.Response(status=status, body=answer)
