"""Filling a pool: to its target and not beyond, by one at a time, and never pressing on an Imburse in trouble."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth import AccessToken, ApiKey, CredentialId
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore
from tests.fake_table import FakeTable
from tests.fakes import BASE_URL, Clock, FakeImburse, FakeSecretsManager, aws_error, secret
from vending.supply.backoff import CAP_SECONDS, REFUSED_CAP_SECONDS, Backoff
from vending.supply.pool import Pool, Pooled
from vending.supply.refill import (
    COVER_MINUTES,
    EXCHANGES_PER_RUN,
    LARGEST_CHUNK,
    LEASE_SECONDS,
    LEAST_SECONDS,
    Filled,
    Refill,
    low_mark,
    target,
)
from vending.table import TableUnavailable

TENANT_A = CredentialId("sandbox", "tenant-a")


class Bench:
    """A refill with a fake Imburse, a fake table and a clock that only moves when told."""

    def __init__(self, pool_min: int = 10, pool_max: int = 100) -> None:
        self.clock = Clock()
        self.table = FakeTable()
        self.imburse = FakeImburse(self.clock)
        self.aws = FakeSecretsManager()
        self.frozen = False
        self.lots: list[tuple[float, float]] = []
        self.pool = Pool(self.table, clock=self.clock)
        self.keep(secret(poolMin=pool_min, poolMax=pool_max))
        self.refill = self.another()

    def keep(self, members: dict[str, Any]) -> None:
        self.imburse.keys.clear()
        self.imburse.accept(members)
        self.members = members
        self.aws.put("sandbox/tenant-a", members)

    def another(self) -> Refill:
        """A refill in an execution environment of its own."""
        return Refill(
            secrets=SecretStore(self.aws, monotonic=self.clock),  # type: ignore[arg-type]
            exchange=Exchange(self.imburse.transport(), clock=self.clock, monotonic=self.clock, sleep=lambda _: None),
            hosts=Hosts.parse(f"sandbox={BASE_URL}"),
            pool=self.pool,
            table=self.table,
            backoff=Backoff(self.table, clock=self.clock, between=self.draw),
            frozen=lambda _: self.frozen,
            clock=self.clock,
        )

    def draw(self, least: float, most: float) -> float:
        self.lots.append((least, most))
        return most

    def run(self, seconds: float = 45) -> Filled:
        return self.refill.run(TENANT_A, deadline=Deadline.after(seconds, self.clock), correlation_id="run-1")

    def depth(self) -> int:
        return self.pool.depth(TENANT_A, least_seconds=LEAST_SECONDS)

    def exchanges(self) -> int:
        return len(self.imburse.requests)

    def backoff(self) -> dict[str, Any] | None:
        items = self.table.partition(f"backoff#{TENANT_A}")
        return dict(items[0]) if items else None

    def stale_token(self, **changes: Any) -> Pooled:
        token = AccessToken("stale", int(self.clock()) + changes.pop("seconds", 1000), "account-1", "tenant-a")
        return Pooled(
            token, **{"base_url": BASE_URL, "public_key": self.members["publicKey"], "correlation_id": None, **changes}
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


# The rule


@pytest.mark.parametrize(
    ("demand", "pool_min", "pool_max", "expected"),
    [
        (0, 0, 0, 0),
        (1000, 0, 0, 0),
        (0, 5, 20, 5),
        (1, 0, 20, 5),
        (3, 5, 20, 15),
        (0.3, 0, 20, 2),
        (60_000, 5, 20, 20),
    ],
)
def test_the_target_follows_demand_from_floor_to_ceiling(
    demand: float, pool_min: int, pool_max: int, expected: int
) -> None:
    assert COVER_MINUTES == 5.0, "the numbers of this table"
    assert target(demand, pool_min, pool_max) == expected


@given(st.floats(0, 1e6), st.integers(0, 10_000), st.integers(0, 10_000))
def test_the_target_is_always_between_floor_and_ceiling(demand: float, one: int, other: int) -> None:
    pool_min, pool_max = sorted((one, other))
    assert pool_min <= target(demand, pool_min, pool_max) <= pool_max
    assert 0 <= low_mark(target(demand, pool_min, pool_max)) <= target(demand, pool_min, pool_max)


# Filling


def test_a_pool_is_filled_to_its_floor(bench: Bench) -> None:
    filled = bench.run()
    assert (filled.state, filled.depth, filled.target, filled.added) == ("filled", 10, 10, 10)
    assert bench.depth() == bench.exchanges() == 10


def test_what_was_filled_in_can_be_claimed(bench: Bench) -> None:
    bench.run()
    claimed = bench.pool.claim(TENANT_A, ApiKey.from_secret(json.dumps(bench.members)), least_seconds=300)
    assert claimed is not None
    assert claimed.token.value in bench.imburse.tokens
    assert claimed.base_url == BASE_URL


def test_a_full_pool_costs_no_exchange(bench: Bench) -> None:
    bench.run()
    filled = bench.run()
    assert (filled.depth, filled.added, bench.exchanges()) == (10, 0, 10)


def test_the_pool_follows_demand_and_shrinks_to_its_floor_when_idle(bench: Bench) -> None:
    bench.pool.count_demand(TENANT_A, 12)
    filled = bench.run()
    assert (filled.demand_per_minute, filled.target, filled.depth) == (12, 60, 60)
    bench.clock.now += 1400  # they have 400 s left: too few to be counted
    filled = bench.run()
    assert (filled.target, filled.depth, filled.added) == (10, 10, 10)


def test_a_pool_is_filled_to_its_ceiling_and_not_beyond(bench: Bench) -> None:
    bench.pool.count_demand(TENANT_A, 1_000_000)
    assert bench.run().depth == bench.depth() == 100


def test_expired_tokens_are_thrown_away_and_replaced(bench: Bench) -> None:
    bench.run()
    bench.clock.now += 1801
    filled = bench.run()
    assert (filled.wasted, filled.added, filled.depth) == (10, 10, 10)


def test_one_run_exchanges_so_many_and_no_more() -> None:
    bench = Bench(pool_min=EXCHANGES_PER_RUN + 100, pool_max=10_000)
    assert bench.run().added == EXCHANGES_PER_RUN
    assert bench.run().added == 100


def test_chunks_grow_from_one_and_are_never_larger_than_the_connections() -> None:
    bench = Bench(pool_min=200, pool_max=200)
    sizes: list[int] = []

    def note(operation: str) -> None:
        if operation == "hold":
            sizes.append(bench.exchanges())

    bench.table.before = note
    bench.run()
    steps = [after - before for before, after in itertools.pairwise(sizes)]
    assert steps[:5] == [1, 2, 4, 8, 16]
    assert max(steps) == LARGEST_CHUNK


def test_a_run_ends_before_its_time_is_up(bench: Bench) -> None:
    def slow(_: requests.PreparedRequest) -> Any:
        bench.clock.now += 20
        return bench.imburse.obey(_)

    bench.imburse.always = slow
    filled = bench.run(seconds=45)
    assert filled.added < 10
    assert bench.clock.now <= 1_614_350_000 + 45 + 20 * 32


@pytest.mark.parametrize("changes", [{"poolMax": 0, "poolMin": 0}, {"reuse": "shared"}])
def test_a_credential_without_a_pool_costs_nothing(bench: Bench, changes: dict[str, Any]) -> None:
    bench.keep(bench.members | changes)
    assert bench.run() == Filled("no pool")
    assert (bench.exchanges(), bench.table.calls) == (0, [])


def test_the_low_mark_is_told_to_who_claims(bench: Bench) -> None:
    bench.run()
    marks = [bench.pool.lower_level(TENANT_A, 1) <= 0 for _ in range(6)]
    assert marks == [False, False, False, False, True, True]


# Two at once


def test_two_refills_at_once_do_not_overfill(bench: Bench) -> None:
    others = [bench.refill, *(bench.another() for _ in range(7))]

    def run(refill: Refill) -> Filled:
        return refill.run(TENANT_A, deadline=Deadline.after(45, bench.clock), correlation_id="run-1")

    with ThreadPoolExecutor(8) as threads:
        states = [filled.state for filled in threads.map(run, others)]
    assert bench.depth() == bench.exchanges() == 10
    assert set(states) <= {"filled", "busy"}


def test_who_comes_while_another_fills_leaves_it_alone(bench: Bench) -> None:
    seen: list[str] = []
    other = bench.another()

    def meanwhile(operation: str) -> None:
        if operation == "put" and not seen:
            seen.append("")
            seen[0] = other.run(TENANT_A, deadline=Deadline.after(45, bench.clock), correlation_id="r").state

    bench.table.before = meanwhile
    assert bench.run().state == "filled"
    assert seen == ["busy"]
    assert bench.depth() == 10


def test_a_refill_that_died_is_followed_when_its_lease_is_over(bench: Bench) -> None:
    bench.table.lease(
        f"lease#refill#{TENANT_A}",
        "lease",
        now_ms=int(bench.clock() * 1000),
        until_ms=int((bench.clock() + LEASE_SECONDS) * 1000),
        ttl=2**31,
    )
    assert bench.run().state == "busy"
    bench.clock.now += LEASE_SECONDS
    assert bench.run().state == "filled"


@pytest.mark.parametrize("operation_before_it_slept", ["put", "hold"])
def test_who_lost_the_lease_stops_exchanging(bench: Bench, operation_before_it_slept: str) -> None:
    def stall(operation: str) -> None:
        if operation == operation_before_it_slept and bench.exchanges() == 1:
            bench.clock.now += LEASE_SECONDS + 1  # and another took over meanwhile

    bench.table.before = stall
    filled = bench.run()
    assert (filled.added, bench.exchanges()) == (1, 1)


# The brake


def test_a_frozen_credentials_pool_is_emptied_and_not_filled(bench: Bench) -> None:
    bench.run()
    bench.frozen = True
    filled = bench.run()
    assert (filled.state, filled.wasted, bench.depth(), bench.exchanges()) == ("frozen", 10, 0, 10)


def test_a_brake_that_is_pulled_while_it_fills_stops_it(bench: Bench) -> None:
    def pull(operation: str) -> None:
        bench.frozen = bench.exchanges() >= 3

    bench.table.before = pull
    bench.run()
    assert bench.exchanges() == 3


# Keys that change


def test_a_rotated_keys_tokens_are_thrown_away_and_replaced(bench: Bench) -> None:
    bench.run()
    bench.keep(secret(poolMin=10, poolMax=100))
    filled = bench.run()
    assert (filled.wasted, filled.added, bench.depth()) == (10, 10, 10)
    tokens = bench.table.partition(f"pool#{TENANT_A}")
    assert {item["public_key"] for item in tokens} == {bench.members["publicKey"]}


def test_a_key_that_is_rotated_while_it_fills_is_read_afresh_when_the_old_one_is_refused(bench: Bench) -> None:
    def rotate(operation: str) -> None:
        if operation == "hold" and bench.exchanges() == 1:
            bench.keep(secret(poolMin=10, poolMax=100))

    bench.table.before = rotate
    filled = bench.run()
    assert (filled.state, filled.depth, bench.backoff()) == ("filled", 10, None)
    tokens = bench.table.partition(f"pool#{TENANT_A}")
    assert {item["public_key"] for item in tokens} == {bench.members["publicKey"]}


def test_the_key_in_memory_serves_while_the_key_store_is_down_and_not_once_it_is_denied(bench: Bench) -> None:
    bench.run()
    bench.pool.purge(TENANT_A)
    bench.aws.failure = aws_error("InternalServiceError", 500)
    assert bench.run().added == 10
    bench.aws.failure = aws_error("AccessDeniedException")
    assert bench.run() == Filled("failed", code="secrets_unavailable")


def test_what_imburse_gives_twice_is_pooled_once(bench: Bench) -> None:
    same = bench.imburse.answer({"accessToken": "the-same-token", "expires": int(bench.clock()) + 1800})
    bench.imburse.always = lambda _: same
    filled = bench.run()
    assert (filled.state, filled.code, bench.depth()) == ("failed", "upstream_protocol", 1)


# Trouble


def refused(bench: Bench) -> Any:
    bench.imburse.keys.clear()


def throttled(bench: Bench) -> Any:
    bench.imburse.always = lambda _: bench.imburse.refuse(429)


def down(bench: Bench) -> Any:
    bench.imburse.always = lambda _: requests.ConnectionError("down")


@pytest.mark.parametrize(
    ("trouble", "code", "cap_seconds"),
    [
        (refused, "upstream_rejected", REFUSED_CAP_SECONDS),
        (throttled, "upstream_throttled", CAP_SECONDS),
        (down, "upstream_unavailable", CAP_SECONDS),
    ],
)
def test_a_failing_exchange_stops_refilling_with_a_wait_that_doubles(
    bench: Bench, trouble: Any, code: str, cap_seconds: float
) -> None:
    trouble(bench)
    waits: list[float] = []
    for failures in range(1, 12):
        asked = bench.exchanges()
        filled = bench.run()
        assert (filled.state, filled.code, filled.added) == ("failed", code, 0)
        assert bench.exchanges() - asked <= 4, "one exchange, with its retries"
        item = bench.backoff()
        assert item is not None
        assert (item["failures"], item["code"]) == (failures, code)
        waits.append(item["until"] - bench.clock())
        asked = bench.exchanges()
        assert bench.run().state == "backing off"
        assert bench.exchanges() == asked
        bench.clock.now = item["until"]
    assert waits[:3] == [10, 20, 40]
    assert max(waits) == waits[-1] == cap_seconds


def test_the_wait_is_drawn_by_lot_between_half_and_the_whole(bench: Bench) -> None:
    down(bench)
    bench.run()
    assert bench.lots == [(5, 10)]


def test_imburse_says_how_long_it_wants_to_be_left_alone(bench: Bench) -> None:
    bench.imburse.always = lambda _: bench.imburse.refuse(429, Retry_After="600")
    bench.run()
    item = bench.backoff()
    assert item is not None
    assert item["until"] == bench.clock() + 600


def test_what_came_before_the_failure_is_kept(bench: Bench) -> None:
    bench.imburse.script = [bench.imburse.obey] * 5
    down(bench)
    filled = bench.run()
    assert (filled.state, filled.added, filled.depth, bench.depth()) == ("failed", 5, 5, 5)


def test_the_first_token_after_an_outage_ends_it_and_the_first_request_is_a_single_one(bench: Bench) -> None:
    down(bench)
    bench.run()
    bench.clock.now += 3600
    bench.imburse.always = None
    seen: list[int] = []
    bench.table.before = lambda operation: seen.append(bench.exchanges()) if operation == "delete" else None
    asked = bench.exchanges()
    assert bench.run().state == "filled"
    assert bench.backoff() is None
    assert seen == [asked + 1]


def test_another_key_is_tried_at_once_however_long_the_last_was_to_be_left_alone(bench: Bench) -> None:
    refused(bench)
    bench.run()
    bench.keep(secret(poolMin=10, poolMax=100))
    bench.clock.now += 1
    bench.refill = bench.another()
    assert bench.run().state == "filled"


def test_a_pool_in_backoff_still_says_how_deep_it_is(bench: Bench) -> None:
    bench.run()
    down(bench)
    bench.pool.purge(TENANT_A)
    bench.pool.put(TENANT_A, bench.stale_token())
    bench.run()
    assert bench.run() == Filled("backing off", depth=1)


@pytest.mark.parametrize("step", range(1, 14))
def test_a_table_that_fails_at_any_step_is_told_and_costs_no_second_token(bench: Bench, step: int) -> None:
    calls = 0
    lock = threading.Lock()

    def fail(_: str) -> None:
        nonlocal calls
        with lock:
            calls += 1
            if calls >= step:
                raise TableUnavailable("InternalServerError")

    bench.table.before = fail
    filled = bench.run()
    assert (filled.state, filled.code) == ("failed", "table_unavailable")
    assert bench.exchanges() <= 10
    bench.table.before = lambda _: None
    bench.clock.now += LEASE_SECONDS
    assert bench.run().state == "filled"
    assert bench.depth() == 10


def test_a_key_store_that_fails_is_told(bench: Bench) -> None:
    bench.aws.failure = aws_error("InternalServiceError", 500)
    assert bench.run() == Filled("failed", code="secrets_unavailable")


@pytest.mark.parametrize(
    ("members", "code"),
    [("not json", "credential_misconfigured"), (None, "credential_not_found")],
)
def test_a_credential_that_cannot_be_used_has_no_pool(bench: Bench, members: Any, code: str) -> None:
    bench.aws.secrets.clear()
    if members is not None:
        bench.aws.put("sandbox/tenant-a", members)
    assert bench.run() == Filled("no pool", code=code)


def test_a_host_that_is_not_allowed_is_left_alone_like_a_refused_key(bench: Bench) -> None:
    bench.keep(bench.members | {"baseUrl": "https://elsewhere.test"})
    assert bench.run().code == "credential_misconfigured"
    assert bench.run().state == "backing off"
    assert bench.exchanges() == 0
