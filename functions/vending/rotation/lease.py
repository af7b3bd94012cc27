"""One at a time: who makes or deletes keys of a tenant holds its lease, so that no run takes another's key for an orphan.

| item | pk | sk | attributes |
|---|---|---|---|
| lease | `rotation` | `lease#<account>/<tenant>` | fence, until_ms |
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vending.table import Table, TableUnavailable

LEASE_SECONDS = (
    10  # longer than one call to Imburse or Secrets Manager (7): who prolongs it first is alone until the call ends
)
WAIT_SECONDS = 15  # for another's lease: after a crash it is free within 10
POLL_SECONDS = 0.5
LEASE_KEPT_SECONDS = 86_400  # the fencing number must not start again while anybody could remember the last


class RotationFailed(Exception):
    """A step or a deletion that must not go on now. The message names the credential's trouble and never a secret."""


class Leases:
    """The leases of all tenants. Everything raises TableUnavailable."""

    def __init__(
        self,
        table: Table,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = table
        self._clock = clock
        self._sleep = sleep

    @contextmanager
    def held(self, account_id: str, tenant_id: str) -> Iterator[Callable[[], None]]:
        """Hold the tenant's lease; what this gives prolongs it, to be called right before each call that makes or deletes.

        Given back on every way out. Raises RotationFailed if another holds it for 15 s, or, when it is prolonged, if it
        ran out and may be another's by now.
        """
        sk = f"lease#{account_id}/{tenant_id}"
        fence = self._taken(sk)

        def prolong() -> None:
            if not self._hold(sk, fence, LEASE_SECONDS):
                raise RotationFailed("lease: it ran out, so another run may be at work on this tenant")

        try:
            yield prolong
        finally:
            with contextlib.suppress(TableUnavailable):  # it runs out by itself
                self._hold(sk, fence, 0)

    def _taken(self, sk: str) -> int:
        give_up_at = self._clock() + WAIT_SECONDS
        while True:
            now_ms = int(self._clock() * 1000)
            until_ms, ttl = now_ms + LEASE_SECONDS * 1000, now_ms // 1000 + LEASE_KEPT_SECONDS
            fence = self._table.lease("rotation", sk, now_ms=now_ms, until_ms=until_ms, ttl=ttl)
            if fence is not None:
                return fence
            if self._clock() + POLL_SECONDS > give_up_at:
                raise RotationFailed("lease: another run is at work on this tenant; try again")
            self._sleep(POLL_SECONDS)

    def _hold(self, sk: str, fence: int, seconds: int) -> bool:
        now_ms = int(self._clock() * 1000)
        return self._table.hold("rotation", sk, fence=fence, now_ms=now_ms, until_ms=now_ms + seconds * 1000)
