"""A child process whose output is read line by line and which never outlives us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local.guard import Guard, kill_group

_MAX_LINE_BYTES = 256 * 1024  # CloudWatch's own limit on one log event; a line without end must not fill our memory


class Child(asyncio.SubprocessProtocol):
    """One process in a process group of its own. `exited` holds its return code (-9 = killed by signal 9) once it ended."""

    def __init__(self, on_line: Callable[[str], None], guard: Guard) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._on_line = on_line
        self._guard = guard
        self._unfinished = b""

    @classmethod
    async def start(
        cls, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, on_line: Callable[[str], None], guard: Guard
    ) -> Child:
        """Starts `argv` with exactly `env`; standard output and error both go to `on_line`, in order."""
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(on_line, guard),
            *argv,
            env=env,
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return child

    @property
    def pid(self) -> int:
        assert self._transport is not None  # noqa: S101 - set before `start` returns
        return self._transport.get_pid()

    async def close(self) -> None:
        """Kills the process and all it started, and waits for the end."""
        if not self.exited.done():
            kill_group(self.pid)
            await asyncio.shield(self.exited)
        assert self._transport is not None  # noqa: S101
        self._transport.close()
        await asyncio.shield(self._closed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101
        self._transport = transport
        self._guard.watch(transport.get_pid())

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._unfinished) > _MAX_LINE_BYTES:
            self._flush()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        self._flush()

    def process_exited(self) -> None:
        kill_group(self.pid)  # what it started goes with it
        self._guard.forget(self.pid)
        assert self._transport is not None  # noqa: S101
        returncode = self._transport.get_returncode()
        if not self.exited.done():
            self.exited.set_result(-1 if returncode is None else returncode)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._closed.done():
            self._closed.set_result(None)

    def _flush(self) -> None:
        if self._unfinished:
            self._emit(self._unfinished)
            self._unfinished = b""

    def _emit(self, line: bytes) -> None:
        self._on_line(line.decode("utf-8", errors="replace").removesuffix("\r"))
