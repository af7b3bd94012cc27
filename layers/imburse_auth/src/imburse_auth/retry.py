"""How long and how often to try: a deadline for the whole, exponential backoff with full jitter between tries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from secrets import SystemRandom
from typing import TYPE_CHECKING

from imburse_auth.errors import UpstreamThrottled, UpstreamUnavailable, VendingError

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying

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
) -> Retrying:
    """Retry throttling and unavailability, nothing else.

    What the upstream asked for with Retry-After is waited for, if it fits the deadline; if not, its answer stands.
    """
    import tenacity

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((UpstreamThrottled, UpstreamUnavailable)),
        wait=_wait_seconds,
        stop=lambda state: (
            state.attempt_number >= attempts
            or state.upcoming_sleep + LEAST_ATTEMPT_SECONDS > deadline.remaining_seconds()
        ),
        sleep=sleep,
        reraise=True,
    )


def _wait_seconds(state: RetryCallState) -> float:
    backoff = _jitter(0, min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2**state.attempt_number))
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.retry_after_seconds if isinstance(failure, VendingError) else None
    return max(backoff, asked or 0)
