"""One execution environment: AWS's runtime client (awslambdaric) in a process of its own, and what we know of it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from local.child import Child
from local.guard import Guard
from local.lambda_runtime import RuntimeApi
from local.lambda_types import Invocation, LogLine, Outcome
from local.template import FunctionSpec

_TAIL_LINES = 100
_TAIL_BYTES = 4096  # what Lambda gives for LogType=Tail


class InitError(Exception):
    """The function's code did not start; `outcome` is what an invocation gets."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        problem = json.loads(outcome.payload)
        super().__init__(f"{problem.get('errorType')}: {problem.get('errorMessage')}")


class Environment:
    """Starts a process for one function and runs invocations in it, one after the other."""

    def __init__(self, spec: FunctionSpec, runtime: RuntimeApi, log: Callable[[LogLine], None]) -> None:
        self._spec = spec
        self._runtime = runtime
        self._log = log
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._child: Child | None = None
        self._failed = False

    @classmethod
    async def start(
        cls,
        spec: FunctionSpec,
        *,
        env: Mapping[str, str],
        task_root: Path,
        log: Callable[[LogLine], None],
        guard: Guard,
        python: str = sys.executable,
    ) -> Environment:
        """Starts the process, by default with our own interpreter; its init is still running when this returns."""
        runtime = RuntimeApi()
        address = await runtime.listen()
        environment = cls(spec, runtime, log)
        environment._child = await Child.start(
            [python, "-m", "awslambdaric", spec.handler],
            env={**env, "AWS_LAMBDA_RUNTIME_API": address},
            cwd=task_root,
            on_line=environment._on_line,
            guard=guard,
        )
        environment._child.exited.add_done_callback(lambda code: runtime.exited(_exit_reason(code.result())))
        return environment

    @property
    def alive(self) -> bool:
        """Whether it can take another invocation."""
        return self._child is not None and not self._child.exited.done() and not self._failed

    async def initialise(self, timeout_seconds: float) -> None:
        """Waits until the function's code has started. Raises InitError."""
        try:
            async with asyncio.timeout(timeout_seconds):
                failure = await asyncio.shield(self._runtime.initialised)
        except TimeoutError:
            failure = Outcome.unhandled(
                "Sandbox.Timedout", f"Error: Init timed out after {timeout_seconds:.2f} seconds"
            )
        if failure is not None:
            self._failed = True
            raise InitError(failure)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Runs one invocation; a crash or a timeout is an outcome, and leaves the environment not alive.

        Raises NotTakenError when the process had ended before.
        """
        self._lines.clear()
        started = time.perf_counter()
        try:
            outcome = await self._runtime.invoke(invocation, self._spec.timeout_seconds)
        except TimeoutError:
            self._failed = True
            waited = f"Error: Task timed out after {self._spec.timeout_seconds:.2f} seconds"
            outcome = Outcome.unhandled("Sandbox.Timedout", f"RequestId: {invocation.request_id} {waited}")
        milliseconds = (time.perf_counter() - started) * 1000
        report = f"REPORT RequestId: {invocation.request_id}\tDuration: {milliseconds:.2f} ms"
        tail = "\n".join([*self._lines, report, ""]).encode()[-_TAIL_BYTES:]
        return replace(outcome, log_tail=tail.decode(errors="ignore"))

    async def close(self) -> None:
        """Kills the process, if it still runs, and closes its port."""
        if self._child is not None:
            await self._child.close()
        await self._runtime.close()

    def _on_line(self, text: str) -> None:
        self._lines.append(text)
        self._log(LogLine(self._spec.name, text))


def _exit_reason(returncode: int) -> str:
    if returncode < 0:
        return f"exited with error: signal: {signal.strsignal(-returncode)}".lower()
    return f"exited with error: exit status {returncode}" if returncode else "exited without providing a reason"
