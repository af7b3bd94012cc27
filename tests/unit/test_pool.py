"""The pool: claimed once, soonest to expire first, only of the key that the credential has now."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from imburse_auth import ApiKey
from tests.fakes import BASE_URL, secret
from tests.pool_bench import TENANT_A, TENANT_B, Bench
from vending.supply.pool import HANDFUL, ROUNDS, Pool, Pooled
from vending.table import TableUnavailable


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_was_put_is_claimed_whole_and_only_once(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    assert bench.claim() == bench.token("one")
    assert bench.claim() is None


def test_an_account_keys_token_has_no_tenant_when_it_comes_back(bench: Bench) -> None:
    bench.key = ApiKey.from_secret(json.dumps(secret(tenantId=None)))
    bench.fill(bench.token("one", tenant=None, correlation_id=None))
    assert bench.claim() == bench.token("one", tenant=None, correlation_id=None)


def test_an_empty_pool_gives_nothing(bench: Bench) -> None:
    assert bench.claim() is None
    assert bench.table.calls == ["query"]


def test_pools_are_apart(bench: Bench) -> None:
    bench.fill(bench.token("one"), credential=TENANT_B)
    assert bench.claim() is None


def test_a_token_is_out_of_the_table_before_anybody_has_it(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    left: list[int] = []
    bench.pool.claim_many(TENANT_A, bench.key, 1, least_seconds=0, on_claim=lambda _: left.append(bench.left()))
    assert left == [0]


def test_the_soonest_to_expire_goes_first_among_those_that_live_long_enough(bench: Bench) -> None:
    bench.fill(bench.token("late", 1700), bench.token("soon", 400), bench.token("too-soon", 299))
    claimed = [bench.claim(), bench.claim(), bench.claim()]
    assert [one and one.token.value for one in claimed] == ["soon", "late", None]
    assert bench.left() == 1


@pytest.mark.parametrize(("least_seconds", "found"), [(0, True), (600, True), (601, False), (1500, False)])
def test_a_request_may_ask_for_another_lifetime(bench: Bench, least_seconds: int, found: bool) -> None:
    bench.fill(bench.token("one", 600))
    assert (bench.claim(least_seconds) is not None) is found


def test_an_expired_token_is_never_claimed_however_long_dynamodb_keeps_it(bench: Bench) -> None:
    bench.fill(bench.token("one", 600))
    bench.clock.now += 601
    assert bench.claim(0) is None
    assert bench.left() == 1


def test_a_token_that_expires_between_the_look_and_the_taking_is_not_handed_out(bench: Bench) -> None:
    bench.fill(bench.token("one", 600))

    def late(operation: str) -> None:
        if operation == "take":
            bench.clock.now += 1000

    bench.table.before = late
    assert bench.claim(0) is None
    assert (bench.wasted, bench.left()) == (1, 0)


@pytest.mark.parametrize(
    "changes",
    [{"public_key": "the-last-key"}, {"tenant": "tenant-x"}, {"tenant": None}, {"base_url": "https://gone.test"}],
)
def test_a_token_that_was_made_with_what_the_credential_is_not_now_is_passed_over(
    bench: Bench, changes: dict[str, Any]
) -> None:
    bench.fill(bench.token("old", 500, **changes), bench.token("new", 600))
    claimed = bench.claim(base_url=BASE_URL)
    assert claimed is not None
    assert claimed.token.value == "new"
    assert (bench.wasted, bench.left()) == (0, 1)


def test_a_pool_of_another_key_costs_a_claim_a_few_looks_and_not_one_token(bench: Bench) -> None:
    bench.fill(*(bench.token(f"old-{n}", public_key="the-last-key") for n in range(300)))
    bench.table.calls.clear()
    assert bench.claim() is None
    assert bench.table.calls == ["query"] * ROUNDS
    assert bench.left() == 300


def test_a_token_is_looked_for_behind_those_of_the_last_key(bench: Bench) -> None:
    bench.fill(*(bench.token(f"old-{n}", 400, public_key="the-last-key") for n in range(100)), bench.token("new"))
    claimed = bench.claim()
    assert claimed is not None
    assert claimed.token.value == "new"


def test_a_token_that_is_changed_between_the_look_and_the_taking_is_not_handed_out(bench: Bench) -> None:
    bench.fill(bench.token("one"))

    def change(operation: str) -> None:
        if operation == "take":
            for item in bench.table.items.values():
                item["public_key"] = "another-key"

    bench.table.before = change
    assert bench.claim() is None
    assert bench.wasted == 1


def test_an_item_that_is_no_token_is_thrown_away(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    (item,) = bench.table.partition(f"pool#{TENANT_A}")
    del item["token"]
    bench.table.put(item)
    assert bench.claim() is None
    assert bench.wasted == 1


def test_a_lost_race_tries_another_among_more(bench: Bench) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(100)))
    lost: list[str] = []

    def rival(operation: str) -> None:
        if operation == "take" and len(lost) < 7:
            lost.append(operation)
            bench.table.items.pop(min(key for key in bench.table.items if key[0] == f"pool#{TENANT_A}"))

    limits: list[int | None] = []
    query = bench.table.query
    bench.table.before = rival
    bench.table.query = lambda *a, **k: limits.append(k["limit"]) or query(*a, **k)  # type: ignore[func-returns-value,method-assign]
    claimed = bench.claim()
    assert claimed is not None
    assert claimed.token.value == "7"
    assert limits == [HANDFUL, 2 * HANDFUL, 4 * HANDFUL]
    assert bench.wasted == 0


def test_who_always_loses_gives_up(bench: Bench) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(100)))
    bench.table.take = lambda pk, sk: None  # type: ignore[method-assign]
    assert bench.claim() is None
    assert bench.table.calls.count("query") == ROUNDS


def test_the_lots_fall_on_the_whole_handful_and_not_beyond(bench: Bench) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(HANDFUL + 1)))
    asked: list[int] = []
    pool = Pool(bench.table, clock=bench.clock, choose=lambda n: asked.append(n) or n - 1)  # type: ignore[func-returns-value]
    claimed = pool.claim(TENANT_A, bench.key, least_seconds=0)
    assert claimed is not None
    assert (asked, claimed.token.value) == ([HANDFUL], str(HANDFUL - 1))


def test_many_claimers_get_every_token_once(bench: Bench) -> None:
    values = {f"{n}" for n in range(300)}
    bench.fill(*(bench.token(value) for value in values))
    pool = Pool(bench.table, clock=bench.clock, patience_seconds=60)
    got: list[str] = []

    def claimer(_: int) -> None:
        while bench.left():
            claimed = pool.claim(TENANT_A, bench.key, least_seconds=300)
            if claimed is not None:
                got.append(claimed.token.value)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(claimer, range(16)))
    assert len(got) == len(values)
    assert set(got) == values


def test_a_batch_takes_what_there_is(bench: Bench) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(40)))
    got: list[Pooled] = []
    bench.pool.claim_many(TENANT_A, bench.key, 30, least_seconds=300, on_claim=got.append)
    assert len({one.token.value for one in got}) == 30
    bench.pool.claim_many(TENANT_A, bench.key, 30, least_seconds=300, on_claim=got.append)
    assert len({one.token.value for one in got}) == 40


def test_what_a_batch_got_before_the_table_failed_is_not_lost(bench: Bench) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(40)))
    takes = 0
    lock = threading.Lock()

    def fail(operation: str) -> None:
        nonlocal takes
        with lock:
            takes += operation == "take"
            if takes > 10:
                raise TableUnavailable("ThrottlingException")

    bench.table.before = fail
    got: list[Pooled] = []
    with pytest.raises(TableUnavailable):
        bench.pool.claim_many(TENANT_A, bench.key, 30, least_seconds=300, on_claim=got.append)
    assert len(got) == 40 - bench.left() == 10


def test_a_claim_makes_no_call_after_three_hundred_milliseconds(bench: Bench) -> None:
    bench.fill(bench.token("one"))

    def slow(operation: str) -> None:
        bench.monotonic.now += 0.31

    bench.table.before = slow
    with pytest.raises(TableUnavailable, match="slow"):
        bench.claim()
    assert (bench.table.calls[-1], bench.left()) == ("query", 1)


@pytest.mark.parametrize("step", ["query", "take"])
def test_a_table_that_fails_is_told(bench: Bench, step: str) -> None:
    bench.fill(bench.token("one"))

    def fail(operation: str) -> None:
        if operation == step:
            raise TableUnavailable("InternalServerError")

    bench.table.before = fail
    with pytest.raises(TableUnavailable, match="InternalServerError"):
        bench.claim()


def test_a_token_that_is_put_twice_is_there_once(bench: Bench) -> None:
    bench.fill(bench.token("one"), bench.token("one"))
    assert bench.left() == 1


def test_an_item_ends_with_its_token(bench: Bench) -> None:
    bench.fill(bench.token("one", 900))
    (item,) = bench.table.partition(f"pool#{TENANT_A}")
    assert item["ttl"] == item["expires"] == bench.clock() + 900


def test_the_token_is_in_no_repr(bench: Bench) -> None:
    assert "the-value" not in repr(bench.token("the-value"))


def test_depth_counts_what_lives_long_enough(bench: Bench) -> None:
    bench.fill(bench.token("1", 200), bench.token("2", 420), bench.token("3", 1800))
    assert [bench.pool.depth(TENANT_A, least_seconds=n) for n in (0, 420, 421, 1801)] == [3, 2, 1, 0]


def test_a_purge_throws_all_away_or_all_but_one_keys(bench: Bench) -> None:
    bench.fill(*(bench.token(f"old-{n}", public_key="the-last-key") for n in range(50)), bench.token("new"))
    bench.fill(bench.token("other"), credential=TENANT_B)
    assert bench.pool.purge(TENANT_A, public_key=bench.key.public_key) == 50
    assert bench.left() == 1
    assert bench.pool.purge(TENANT_A) == 1
    assert bench.pool.purge(TENANT_A) == 0
    assert bench.pool.depth(TENANT_B, least_seconds=0) == 1


def test_tidying_throws_away_what_nobody_may_have_and_counts_the_rest(bench: Bench) -> None:
    bench.fill(
        bench.token("dead", 100),
        bench.token("short", 300),
        bench.token("good", 1000),
        bench.token("old", 1000, public_key="the-last-key"),
        bench.token("away", 1000, base_url="https://gone.test"),
    )
    bench.clock.now += 100
    assert bench.pool.tidy(TENANT_A, bench.key, least_seconds=420, base_url=BASE_URL) == (1, 3)
    assert bench.left() == 2


def test_demand_is_that_of_the_busiest_of_the_last_minutes(bench: Bench) -> None:
    assert bench.pool.demand_per_minute(TENANT_A) == 0
    bench.pool.count_demand(TENANT_A, 5)
    bench.pool.count_demand(TENANT_A, 2)
    bench.clock.now += 60
    bench.pool.count_demand(TENANT_A, 1)
    assert bench.pool.demand_per_minute(TENANT_A) == 7
    assert bench.pool.demand_per_minute(TENANT_B) == 0
    bench.clock.now += 240
    assert bench.pool.demand_per_minute(TENANT_A) == 1
    bench.clock.now += 60
    assert bench.pool.demand_per_minute(TENANT_A) == 0


def test_the_level_says_when_the_low_mark_is_reached(bench: Bench) -> None:
    bench.pool.set_level(TENANT_A, 3)
    assert [bench.pool.lower_level(TENANT_A, 1) for _ in range(4)] == [2, 1, 0, -1]
    bench.pool.raise_level(TENANT_A, 3)
    assert bench.pool.lower_level(TENANT_A, 1) > 0


def test_a_pool_that_was_never_filled_is_at_its_low_mark(bench: Bench) -> None:
    assert bench.pool.lower_level(TENANT_A, 1) <= 0
