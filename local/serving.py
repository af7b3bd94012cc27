"""Serves an aiohttp application on this machine only, and lets synchronous code use what is asynchronous."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

from aiohttp import web

_T = TypeVar("_T")
_SHUTDOWN_SECONDS = 0.5


class PortInUseError(Exception):
    """Something else listens on the port already."""


def bind(port: int) -> socket.socket:
    """Listens on 127.0.0.1; port 0 takes any free one. Raises PortInUseError.

    Apart from serving, so that an address is known, and a port that is taken is found, before anything is started.
    """
    try:
        return socket.create_server(("127.0.0.1", port), backlog=1024)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError(f"port {port} is in use") from exc
        raise


def base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"


@asynccontextmanager
async def serving(app: web.Application, listener: socket.socket) -> AsyncIterator[str]:
    """Serves `app` on what `bind` gave, which it closes at the end; gives the base URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, listener, backlog=1024).start()
        yield base_url(listener)
    finally:
        await runner.cleanup()


@contextmanager
def in_background(context: AbstractAsyncContextManager[_T]) -> Iterator[_T]:
    """Enters `context` in an event loop on a thread of its own; leaving the block leaves the context.

    Raises what entering or leaving raises.
    """
    entered: Future[tuple[_T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def stay() -> None:
        leave = asyncio.Event()
        async with context as value:
            entered.set_result((value, asyncio.get_running_loop(), leave))
            await leave.wait()

    finished: Future[None] = Future()

    def work() -> None:
        try:
            asyncio.run(stay())
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that waits for it
            (finished if entered.done() else entered).set_exception(exc)
        else:
            finished.set_result(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    value, loop, leave = entered.result()
    try:
        yield value
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        finished.result()
