"""Filling the pools: how many tokens a credential wants ahead of need, and getting them without pressing on Imburse.

| item | pk | sk | attributes |
|---|---|---|---|
| lease | `lease#refill#<credential>` | `lease` | fence, until_ms: who has it is the only one who exchanges for this pool |
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import SecretsUnavailable, UpstreamProtocol, UpstreamRejected, VendingError
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore
from imburse_auth.transport import MAX_CONNECTIONS
from vending.supply.backoff import Backoff
from vending.supply.once import Once
from vending.supply.pool import Pool, Pooled
from vending.table import Table, TableUnavailable

# The rule, with constants from tests/bench/simulate_refill.py. The hit rate hardly depends on them; 5 minutes survive an
# outage of as long for 4 % more exchanges than vends (21 % when demand comes and goes by the half-hour), 10 cost up to 95 %.
COVER_MINUTES = 5.0  # the demand of so many minutes is kept ahead
LOW_MARK = 0.5  # a pool with less than this share of its target left wants filling before the schedule comes round
LEAST_SECONDS = 420  # what ends sooner is not counted: the default lifetime asked for, and the time until the next run

# Its pace. Chunks double from one on: an Imburse that has just come back meets one request, then two, then four.
LARGEST_CHUNK = MAX_CONNECTIONS
EXCHANGES_PER_RUN = 2_000
CHUNK_SECONDS = 10.0
LEASE_SECONDS = 20  # longer than a chunk with its writing down, so that no chunk outlives the lease it was begun under
LEASE_KEPT_SECONDS = 86_400  # the fencing number must not start again while anybody could remember the last

State = Literal["no pool", "filled", "busy", "backing off", "frozen", "failed"]


def target(demand_per_minute: float, pool_min: int, pool_max: int) -> int:
    """How many usable tokens a pool is filled up to: what the demand uses in the time to cover, from floor to ceiling."""
    return max(0, min(pool_max, max(pool_min, math.ceil(demand_per_minute * COVER_MINUTES))))


def low_mark(target_count: int) -> int:
    """With as many left, or fewer, the pool is filled at once."""
    return math.floor(target_count * LOW_MARK)


@dataclass(frozen=True)
class Filled:
    """What a run found and did.

    `depth` counts usable tokens at the end, None if the run did not look. `code` says why it failed: an error's code, or
    `table_unavailable`.
    """

    state: State
    depth: int | None = None
    target: int | None = None
    demand_per_minute: float | None = None
    added: int = 0
    wasted: int = 0
    code: str | None = None


class Refill:
    """Fills one pool at a time. However many run at once, one of them fills a credential's pool."""

    def __init__(
        self,
        *,
        secrets: SecretStore,
        exchange: Exchange,
        hosts: Hosts,
        pool: Pool,
        table: Table,
        backoff: Backoff,
        frozen: Callable[[CredentialId], bool] = lambda _: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secrets = secrets
        self._exchange = exchange
        self._hosts = hosts
        self._pool = pool
        self._table = table
        self._backoff = backoff
        self._frozen = frozen
        self._clock = clock
        self._once = Once()

    def run(self, credential: CredentialId, *, deadline: Deadline, correlation_id: str) -> Filled:
        """Bring the pool to its target, as far as the deadline and 2,000 exchanges go.

        A frozen credential's pool is emptied instead. What Imburse refuses is written down, and nobody tries again until its
        time. Nothing is raised for a failure: the answer tells.
        """
        try:
            api_key = self._key(credential)
        except SecretsUnavailable as exc:
            return Filled("failed", code=exc.code)
        except VendingError as exc:
            return Filled("no pool", code=exc.code)  # whoever asks for its tokens is told, and that is counted
        if not _has_pool(api_key):
            return Filled("no pool")
        try:
            if self._frozen(credential):
                return Filled("frozen", depth=0, target=0, wasted=self._pool.purge(credential))
            if not self._backoff.over(credential, api_key.public_key):
                return Filled("backing off", self._pool.depth(credential, least_seconds=LEAST_SECONDS))
            now_ms = int(self._clock() * 1000)
            until_ms, ttl = now_ms + LEASE_SECONDS * 1000, now_ms // 1000 + LEASE_KEPT_SECONDS
            fence = self._table.lease(*_lease(credential), now_ms=now_ms, until_ms=until_ms, ttl=ttl)
            if fence is None:
                return Filled("busy")
            try:
                return self._fill(credential, api_key, fence, deadline, correlation_id)
            finally:
                with contextlib.suppress(TableUnavailable):  # it runs out by itself
                    self._hold(credential, fence, seconds=0)
        except TableUnavailable:
            return Filled("failed", code="table_unavailable")

    def _fill(
        self, credential: CredentialId, api_key: ApiKey, fence: int, deadline: Deadline, correlation_id: str
    ) -> Filled:
        """Under the lease: nobody else adds to the pool, so what is counted here is what there is, or fewer."""
        failures = self._backoff.failures(credential, api_key.public_key)
        filled = Filled("filled")
        try:
            base_url = self._hosts.base_url(credential, api_key.base_url)
            depth, wasted = self._pool.tidy(credential, api_key, least_seconds=LEAST_SECONDS, base_url=base_url)
            demand = self._pool.demand_per_minute(credential)
            wanted = target(demand, api_key.pool_min, api_key.pool_max)
            self._pool.set_level(credential, depth - low_mark(wanted))
            filled = Filled("filled", depth, wanted, demand, wasted=wasted)

            def one(chunk_deadline: Deadline) -> VendingError | None:
                try:
                    exchanged = self._exchange.access_token(
                        api_key, base_url, deadline=chunk_deadline, correlation_id=correlation_id
                    )
                    if not self._once.first_time(exchanged.token.fingerprint):
                        raise UpstreamProtocol("Imburse gave out a token that it gave out before")
                except VendingError as exc:
                    return exc
                pooled = Pooled(exchanged.token, base_url, api_key.public_key, exchanged.correlation_id)
                self._pool.put(credential, pooled)
                return None

            missing, chunk = min(wanted - depth, EXCHANGES_PER_RUN), 1
            with ThreadPoolExecutor(LARGEST_CHUNK, "refill") as threads:
                while missing > 0 and (seconds := min(CHUNK_SECONDS, deadline.remaining_seconds())) > 1:
                    # It runs from before the lease is prolonged, so whoever is stopped in between finds it passed.
                    chunk_deadline = Deadline.after(seconds, deadline.clock)
                    # Before each chunk: it may be another's by now, or somebody pulled the brake.
                    if not self._hold(credential, fence, seconds=LEASE_SECONDS) or self._frozen(credential):
                        break
                    if chunk_deadline.remaining_seconds() <= 0:
                        break
                    outcomes = list(threads.map(one, [chunk_deadline] * min(chunk, missing)))
                    came = outcomes.count(None)
                    self._pool.raise_level(credential, came)
                    filled = replace(filled, depth=depth + filled.added + came, added=filled.added + came)
                    if (error := next(filter(None, outcomes), None)) is not None:
                        raise error
                    if failures:
                        self._backoff.clear(credential)
                        failures = 0
                    missing, chunk = missing - came, min(chunk * 2, LARGEST_CHUNK)
        except VendingError as exc:
            if isinstance(exc, UpstreamRejected) and (fresh := self._reread(credential, api_key)) is not None:
                return self._fill(credential, fresh, fence, deadline, correlation_id)
            filled = replace(filled, state="failed", code=exc.code)
            with contextlib.suppress(TableUnavailable):
                self._backoff.note(credential, api_key.public_key, failures + 1, exc)
        except TableUnavailable:
            filled = replace(filled, state="failed", code="table_unavailable")
        return filled

    def _key(self, credential: CredentialId) -> ApiKey:
        """The key as it is now, if there is a pool: tokens of a rotated one are to be gone within the minute."""
        api_key = self._secrets.get(credential)
        if not _has_pool(api_key):
            return api_key
        try:
            return self._secrets.reread(credential, api_key)
        except SecretsUnavailable:
            return self._secrets.get(credential)  # which knows whether the one in memory may still be served

    def _reread(self, credential: CredentialId, refused: ApiKey) -> ApiKey | None:
        """The key that came instead of one that was refused, if one did. Its tokens must bear its own name."""
        try:
            fresh = self._secrets.reread(credential, refused)
        except VendingError:
            return None
        return fresh if fresh.public_key != refused.public_key else None

    def _hold(self, credential: CredentialId, fence: int, *, seconds: int) -> bool:
        now_ms = int(self._clock() * 1000)
        return self._table.hold(*_lease(credential), fence=fence, now_ms=now_ms, until_ms=now_ms + seconds * 1000)


def _has_pool(api_key: ApiKey) -> bool:
    return api_key.pool_max > 0 and api_key.reuse == "single-use"


def _lease(credential: CredentialId) -> tuple[str, str]:
    return f"lease#refill#{credential}", "lease"
