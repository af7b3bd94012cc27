"""Where a token comes from: the pool, else an exchange in line; or the shared one, where a tenant allows it.

A vend never fails because the pool failed, and waits for it no longer than 0.3 s.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import VendingError
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore
from vending.supply.inline import Effort, InlineSupply, Supplied
from vending.supply.once import Once
from vending.supply.pool import Pool, Pooled
from vending.supply.shared import Shared
from vending.supply.waker import Waker
from vending.table import PATIENCE_SECONDS, TableUnavailable

THREADS = 8  # a claim, two counters and a wake, and as many that were given up and hang until their time-out
TALLY_SECONDS = 1.0


class Supply:
    """Gets tokens from wherever they are to be had first. A credential without a pool has each exchanged in line."""

    def __init__(
        self,
        *,
        secrets: SecretStore,
        hosts: Hosts,
        inline: InlineSupply,
        once: Once,
        pool: Pool,
        waker: Waker,
        shared: Shared,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secrets = secrets
        self._hosts = hosts
        self._inline = inline
        self._once = once
        self._pool = pool
        self._waker = waker
        self._shared = shared
        self._patience_seconds = patience_seconds
        self._tally = _Tally(clock)
        self._threads = ThreadPoolExecutor(THREADS, "supply")  # starts none before the first claim

    def now(self, base_url: str) -> float:
        """Seconds since the epoch by that host's clock."""
        return self._inline.now(base_url)

    def one(
        self, credential: CredentialId, *, least_seconds: int, deadline: Deadline, correlation_id: str, effort: Effort
    ) -> Supplied:
        """One token with at least `least_seconds` left. Raises the errors of the key, the host and the exchange."""
        (outcome,) = self.many(
            credential,
            1,
            least_seconds=least_seconds,
            deadline=deadline,
            correlation_id=correlation_id,
            effort=effort,
        )
        if isinstance(outcome, VendingError):
            raise outcome
        return outcome

    def fresh(self, credential: CredentialId, *, deadline: Deadline, correlation_id: str, effort: Effort) -> Supplied:
        """One token exchanged now, to see whether the key does it. Raises like `one`."""
        return self._inline.one(credential, deadline=deadline, correlation_id=correlation_id, effort=effort)

    def many(
        self,
        credential: CredentialId,
        count: int,
        *,
        least_seconds: int,
        deadline: Deadline,
        correlation_id: str,
        effort: Effort,
    ) -> Iterator[Supplied | VendingError]:
        """As many outcomes as asked for, each as it comes: what the pool has first, the rest exchanged.

        Raises the errors of the key and the host, which would be the same for all.
        """
        api_key = self._secrets.get(credential, deadline=deadline, on_read=effort.count_secret_read)
        base_url = self._hosts.base_url(credential, api_key.base_url)

        def exchange() -> Supplied:
            return self._inline.one(credential, deadline=deadline, correlation_id=correlation_id, effort=effort)

        missing = count
        if api_key.reuse == "shared":
            supplied = self._shared.token(credential, api_key, exchange, least_seconds=least_seconds, base_url=base_url)
            yield from [supplied] * count
            missing = 0
        elif api_key.pool_max > 0:
            for pooled in self._claim(credential, api_key, base_url, count, least_seconds, effort):
                missing -= 1
                yield Supplied(pooled.token, pooled.base_url, pooled.correlation_id, "pool")
        if missing == 1:
            try:
                yield exchange()
            except VendingError as exc:
                yield exc
        elif missing > 1:
            try:
                yield from self._inline.many(
                    credential, missing, deadline=deadline, correlation_id=correlation_id, effort=effort
                )
            except VendingError as exc:  # before any of them: what the pool gave must not be lost for it
                yield from [exc] * missing

    def _claim(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        base_url: str,
        count: int,
        least_seconds: int,
        effort: Effort,
    ) -> list[Pooled]:
        """What the pool has, up to `count`. Nothing that it does keeps the vend from going on."""
        basket = _Basket(self._once, effort)
        claim = self._threads.submit(
            self._pool.claim_many,
            credential,
            api_key,
            count,
            least_seconds=least_seconds,
            base_url=base_url,
            on_claim=basket.add,
            on_wasted=lambda: effort.note("TokensWasted"),
        )
        # Beside the claim, which does not depend on them.
        counted = self._tally.add(credential, count)
        levels = [self._threads.submit(self._pool.lower_level, credential, counted)] if counted else []
        demands = [self._threads.submit(self._pool.count_demand, credential, counted)] if counted else []
        self._wait(basket, claim, *levels, *demands)
        pooled = basket.close()
        effort.note("PoolHit", len(pooled))
        failure = claim.exception() if claim.done() and not claim.cancelled() else TableUnavailable("slow")
        if failure is not None and len(pooled) < count:
            effort.note("PoolUnavailable")
            effort.troubles.append(str(failure) if isinstance(failure, TableUnavailable) else type(failure).__name__)
        else:
            effort.note("PoolMiss", count - len(pooled))
            level = next((call.result() for call in levels if _succeeded(call)), None)
            if level is not None:
                self._tally.note_level(credential, level)
            if len(pooled) < count or (level is not None and level <= 0):
                wait([self._threads.submit(self._waker.wake, credential)], self._patience_seconds)
        return pooled

    def _wait(self, basket: _Basket, claim: Future[None], *counters: Future[Any]) -> None:
        """Until all are done, or 0.3 s went by without a token: a batch that makes progress is waited for."""
        calls = (claim, *counters)
        while True:
            came = len(basket)
            if not wait(calls, self._patience_seconds).not_done or claim.done() or len(basket) == came:
                break
        for call in calls:
            call.cancel()  # what has not begun must not: it would take a token for nobody


class _Tally:
    """What was asked for, gathered for a second: one item takes 1,000 writes a second from all environments together.

    Or until it is as much as stood above the low mark when the level was last written: the refill is then to be woken.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        # The wall clock: the monotonic one may stand still while Lambda keeps an environment frozen between two visits.
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[CredentialId, int] = {}
        self._written_at: dict[CredentialId, float] = {}
        self._level: dict[CredentialId, int] = {}

    def add(self, credential: CredentialId, count: int) -> int:
        """How many are to be written down now: 0, or these and those that waited."""
        now = self._clock()
        with self._lock:
            waiting = self._waiting.pop(credential, 0) + count
            recent = 0 <= now - self._written_at.get(credential, -math.inf) < TALLY_SECONDS
            level = self._level.get(credential, 0)
            if recent and (level <= 0 or waiting < level):  # at the low mark already, the refill knows
                self._waiting[credential] = waiting
                return 0
            self._written_at[credential] = now
            return waiting

    def note_level(self, credential: CredentialId, level: int) -> None:
        """How many tokens stand above the low mark, as the table says."""
        with self._lock:
            self._level[credential] = level


class _Basket:
    """Where claimed tokens are put, until it is closed: what comes too late is wasted, never handed out later."""

    def __init__(self, once: Once, effort: Effort) -> None:
        self._once = once
        self._effort = effort
        self._lock = threading.Lock()
        self._pooled: list[Pooled] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._pooled)

    def add(self, pooled: Pooled) -> None:
        with self._lock:
            if not self._closed and self._once.first_time(pooled.token.fingerprint):
                self._pooled.append(pooled)
            else:
                self._effort.note("TokensWasted")

    def close(self) -> list[Pooled]:
        with self._lock:
            self._closed = True
            return self._pooled


def _succeeded(call: Future[Any]) -> bool:
    return call.done() and not call.cancelled() and call.exception() is None
