"""Checks that build on one another: run in order, each with a next step, and none that only repeats what failed before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from imburse_vending.common import CommandError, ExitCode


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Result:
    """What a check found; `fix` is the next step, `code` the exit code if this is the first that failed."""

    state: State
    says: str
    fix: str | None = None
    code: ExitCode = ExitCode.FAILED

    @classmethod
    def of(cls, error: CommandError) -> Result:
        """A command's error as a failed check."""
        return cls(State.FAILED, error.problem, error.next_step, error.code)


@dataclass(frozen=True)
class Check:
    """One check, and those without which it makes no sense."""

    name: str
    run: Callable[[], Result]
    needs: tuple[str, ...] = ()


def examine(checks: tuple[Check, ...]) -> Iterator[tuple[Check, Result]]:
    """Run one check at each step; what needs a failed one is skipped. Never raises CommandError: it is the result."""
    blocked: set[str] = set()
    for check in checks:
        missing = next((need for need in check.needs if need in blocked), None)
        if missing is not None:
            result = Result(State.SKIPPED, f"needs: {missing}")
        else:
            try:
                result = check.run()
            except CommandError as exc:
                result = Result.of(exc)
        if missing is not None or result.state is State.FAILED:
            blocked.add(check.name)
        yield check, result
