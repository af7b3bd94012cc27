"""How long and how often to try: a deadline for the whole, exponential backoff with full jitter between tries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from secrets import SystemRandom
from typing import TypeVar

from imburse_auth.errors import UpstreamThrottled, UpstreamUnavailable

_T = TypeVar("_T")

MAX_ATTEMPTS = 4
BACKOFF_BASE_SECONDS = 0.1
BACKOFF_CAP_SECONDS = 2.0
LEAST_ATTEMPT_SECONDS = 0.2  # with less than this left, another try would only be cut off

# Not `random`: its state is part of a SnapStart snapshot, so every restored environment would wait the same "random" time.
_jitter = SystemRandom().uniform


@dataclass(frozen=True)
class Deadline:
    """A point in monotonic time by which the caller must have an answer."""

    at_seconds: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(clock() + seconds, clock)

    def remaining_seconds(self) -> float:
        """Seconds left, negative once it has passed."""
        return self.at_seconds - self.clock()


def retrying(
    deadline: Deadline, *, attempts: int = MAX_ATTEMPTS, sleep: Callable[[float], None] = time.sleep
) -> Callable[[Callable[[], _T]], _T]:
    """What calls an operation, and again after throttling and unavailability, nothing else.

    What the upstream asked for with Retry-After is waited for, if it fits the deadline; if not, its answer stands.
    """

    def call(operation: Callable[[], _T]) -> _T:
        attempt = 1
        while True:
            try:
                return operation()
            except (UpstreamThrottled, UpstreamUnavailable) as failure:
                wait_seconds = max(_backoff_seconds(attempt), failure.retry_after_seconds or 0)
                if attempt >= attempts or wait_seconds + LEAST_ATTEMPT_SECONDS > deadline.remaining_seconds():
                    raise
            sleep(wait_seconds)
            attempt += 1

    return call


def _backoff_seconds(attempt: int) -> float:
    return _jitter(0, min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2**attempt))
