"""What each source does alike: trying again for a bounded time, and being made anew in a forked process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from imburse_auth.client.failed import VendingFailed

if TYPE_CHECKING:
    import boto3

PATIENCE_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 3.0
READ_TIMEOUT_SECONDS = 35.0  # a vend function ends at 30 s, and API Gateway gives up at 29
_BACKOFF_BASE_SECONDS = 0.2
_BACKOFF_CAP_SECONDS = 3.0

_T = TypeVar("_T")
_jitter = SystemRandom().uniform


@dataclass(frozen=True)
class Patience:
    """Tries again what passes by itself, as long as the next try begins within `seconds` of the first.

    Retried is 429 and 503, and no connection. Whatever else failed would fail again. A try that reached the machine and
    whose answer was lost costs the token it vended, which expires unused; it is never repeated to anybody.
    """

    seconds: float = PATIENCE_SECONDS
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if self.seconds < 0:
            raise ValueError("patience_seconds: must not be negative")

    def __call__(self, attempt: Callable[[], _T]) -> _T:
        """What `attempt` answers. Raises its last VendingFailed."""
        end = self.monotonic() + self.seconds
        tries = 0
        while True:
            try:
                return attempt()
            except VendingFailed as failure:
                tries += 1
                backoff = _jitter(0, min(_BACKOFF_CAP_SECONDS, _BACKOFF_BASE_SECONDS * 2**tries))
                wait = max(backoff, failure.retry_after_seconds or 0)
                if not _passes(failure) or self.monotonic() + wait >= end:
                    raise
            self.sleep(wait)


def _passes(failure: VendingFailed) -> bool:
    return failure.retryable and (failure.status in (429, 503) or failure.code == "unreachable")


def region_of(session: boto3.Session) -> str | None:
    """The session's region, or else AWS_REGION, which botocore does not read and containers on AWS have."""
    return session.region_name or os.environ.get("AWS_REGION") or None


class PerProcess(Generic[_T]):
    """A thing that holds connections, made on first use and once a process.

    A forked child that wrote into its parent's connection would take the parent's answers, tokens among them. A copy makes
    its own too.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._made: dict[int, _T] = {}
        self._locks: dict[int, threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}, "_locks": {}}

    def get(self) -> _T:
        """The one of this process."""
        pid = os.getpid()
        if pid not in self._made:
            # A lock of this process's own too: the parent's may have been held at the fork, and would stay so.
            with self._locks.setdefault(pid, threading.Lock()):
                if pid not in self._made:
                    self._made[pid] = self._make()
        return self._made[pid]
