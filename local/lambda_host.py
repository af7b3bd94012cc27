"""Runs Lambda functions on this machine: execution environments that grow with concurrency, and the invocations in them."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from local.guard import Guard
from local.lambda_environment import Environment, InitError
from local.lambda_names import Directory, Target, UnknownFunction
from local.lambda_runtime import NotTakenError
from local.lambda_types import Invocation, LogLine, Outcome
from local.lambda_variables import function_variables
from local.template import FunctionSpec

__all__ = ["HostSettings", "InvokeResult", "LambdaHost", "UnknownFunction"]

_T = TypeVar("_T")
_ATTEMPTS = 3  # an idle environment may die just when it is chosen


@dataclass(frozen=True)
class InvokeResult:
    """What an invocation gives; `function_error` is "Unhandled" or None, `log_tail` the function's last 4 KB of log."""

    payload: bytes
    function_error: str | None
    request_id: str
    executed_version: str
    log_tail: str = ""


@dataclass(frozen=True)
class HostSettings:
    """How functions run here.

    `layers` maps a folder under /opt to a path of this machine; `variables` are added to every function's environment;
    `concurrency` is the number of environments one function version may have: further requests wait their turn.
    """

    task_root: Path
    region: str = "eu-west-1"
    account_id: str = "123456789012"
    layers: Mapping[str, Path] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 8
    init_timeout_seconds: float = 30


class _Pool:
    """The environments of one function version."""

    def __init__(self, start: Callable[[], Awaitable[Environment]], settings: HostSettings) -> None:
        self._start = start
        self._init_timeout_seconds = settings.init_timeout_seconds
        self._turns = asyncio.Semaphore(settings.concurrency)  # first come, first served
        self._idle: list[Environment] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        for _ in range(_ATTEMPTS):
            try:
                return await self._with_environment(lambda environment: environment.invoke(invocation))
            except InitError as exc:
                return exc.outcome
            except NotTakenError as exc:
                lost = exc.outcome
        return lost

    async def warm(self) -> None:
        """Starts one environment, unless there is one. Raises InitError."""

        async def nothing(_: Environment) -> None:
            return None

        await self._with_environment(nothing)

    async def close(self) -> None:
        await asyncio.gather(*(environment.close() for environment in self._idle))

    async def _with_environment(self, use: Callable[[Environment], Awaitable[_T]]) -> _T:
        async with self._turns:
            environment = await self._take()
            try:
                await environment.initialise(self._init_timeout_seconds)
                result = await use(environment)
            except BaseException:  # cancelled, or the init failed: nobody knows what still runs in there
                await environment.close()
                raise
            if environment.alive:
                self._idle.append(environment)
            else:
                await environment.close()
            return result

    async def _take(self) -> Environment:
        while self._idle:
            environment = self._idle.pop()  # the one used last is the warmest
            if environment.alive:
                return environment
            await environment.close()
        return await self._start()


class LambdaHost:
    """An async context manager; on exit every function process is gone."""

    def __init__(
        self,
        functions: Iterable[FunctionSpec],
        settings: HostSettings,
        *,
        guard: Guard,
        log: Callable[[LogLine], None] = lambda _: None,
    ) -> None:
        self.directory = Directory(functions, region=settings.region, account_id=settings.account_id)
        self._settings = settings
        self._guard = guard
        self._log = log
        self._pools: dict[tuple[str, str], _Pool] = {}
        self._running: set[asyncio.Task[InvokeResult]] = set()

    async def __aenter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="lambda-home-")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        self._home.cleanup()

    async def invoke(
        self,
        function: str,
        qualifier: str | None,
        payload: bytes,
        *,
        client_context: str | None = None,
        trace_id: str | None = None,
    ) -> InvokeResult:
        """Invokes a function and waits for its answer.

        `function` is a name, an ARN, a logical id or a handler module's short name; `client_context` is JSON text in ASCII.
        Raises UnknownFunction, InvalidReferenceError. What goes wrong inside the function is a result with `function_error`.
        """
        target = self.directory.find(function, qualifier)
        return await self.run(target, payload, str(uuid.uuid4()), client_context=client_context, trace_id=trace_id)

    async def run(
        self,
        target: Target,
        payload: bytes,
        request_id: str,
        *,
        client_context: str | None = None,
        trace_id: str | None = None,
    ) -> InvokeResult:
        """Invokes a function that was found already, under a request id that was given out already."""
        # A task of its own: when the caller goes away the function still runs to its end, as it does on AWS.
        invocation = Invocation(request_id, target.arn, payload or b"{}", trace_id or _new_trace_id(), client_context)
        task = asyncio.create_task(self._run(target, invocation))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def warm(self, function: str, qualifier: str | None) -> None:
        """Starts one environment of a function. Raises InitError when its code does not start."""
        await self._pool(self.directory.find(function, qualifier)).warm()

    async def _run(self, target: Target, invocation: Invocation) -> InvokeResult:
        outcome = await self._pool(target).invoke(invocation)
        return InvokeResult(
            outcome.payload, outcome.function_error, invocation.request_id, target.version, outcome.log_tail
        )

    def _pool(self, target: Target) -> _Pool:
        key = (target.spec.name, target.version)
        if key not in self._pools:
            self._pools[key] = _Pool(lambda: self._start(target.spec, target.version), self._settings)
        return self._pools[key]

    async def _start(self, spec: FunctionSpec, version: str) -> Environment:
        env = function_variables(
            spec,
            version,
            region=self._settings.region,
            task_root=self._settings.task_root,
            home=Path(self._home.name),
            layers=self._settings.layers,
            extra=self._settings.variables,
        )
        return await Environment.start(
            spec, env=env, task_root=self._settings.task_root, log=self._log, guard=self._guard
        )


def _new_trace_id() -> str:
    return f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Parent={secrets.token_hex(8)};Sampled=0"
