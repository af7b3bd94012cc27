"""What of the pool a reader could take for a detail: the exact items, how wide and how often it looks, where the work is done."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from imburse_auth import CredentialId
from tests.fakes import BASE_URL
from tests.pool_bench import TENANT_A, Bench
from vending.supply.pool import Pool, Pooled
from vending.table import TableUnavailable


@pytest.fixture
def bench() -> Bench:
    return Bench()


def limits_of_looks(bench: Bench) -> list[int | None]:
    """How wide each look from now on is."""
    query, limits = bench.table.query, list[int | None]()

    def watched(pk: str, **options: Any) -> Any:
        limits.append(options["limit"])
        return query(pk, **options)

    bench.table.query = watched  # type: ignore[method-assign]
    return limits


def test_a_token_is_kept_as_the_tables_own_description_says(bench: Bench) -> None:
    bench.fill(bench.token("one", 900))
    expires = int(bench.clock()) + 900
    (item,) = bench.table.items.values()
    assert item == {
        "pk": "pool#sandbox/tenant-a",
        "sk": f"00{expires}#{hashlib.sha256(b'one').hexdigest()[:16]}",
        "token": "one",
        "expires": expires,
        "account": "account-1",
        "tenant": "tenant-a",
        "base_url": BASE_URL,
        "public_key": bench.key.public_key,
        "correlation_id": "c-1",
        "ttl": expires,
    }


def test_demand_is_kept_by_minute_for_an_hour(bench: Bench) -> None:
    bench.pool.count_demand(TENANT_A, 5)
    (item,) = bench.table.items.values()
    minute, now = f"00{int(bench.clock() // 60)}", int(bench.clock())
    assert item == {"pk": "demand#sandbox/tenant-a", "sk": minute, "n": 5, "ttl": now + 3600}


@pytest.mark.parametrize("second", [0, 59])
def test_demand_counts_to_the_end_of_the_fourth_minute_after_it(bench: Bench, second: int) -> None:
    bench.clock.now = 60.0 * 27_000_000 + second
    bench.pool.count_demand(TENANT_A, 2)
    bench.clock.now += 60 * 4
    assert bench.pool.demand_per_minute(TENANT_A) == 2
    bench.clock.now += 60
    assert bench.pool.demand_per_minute(TENANT_A) == 0


@pytest.mark.parametrize(
    ("change", "level"),
    [
        (lambda pool: pool.set_level(TENANT_A, 3), 3),
        (lambda pool: pool.raise_level(TENANT_A, 3), 3),
        (lambda pool: pool.lower_level(TENANT_A, 3), -3),
    ],
    ids=["set", "raised", "lowered"],
)
def test_the_level_is_kept_for_an_hour(bench: Bench, change: Any, level: int) -> None:
    change(bench.pool)
    (item,) = bench.table.items.values()
    assert item == {"pk": "level#sandbox/tenant-a", "sk": "level", "n": level, "ttl": int(bench.clock()) + 3600}


def test_each_look_is_twice_as_wide_as_the_last_and_good_for_three_draws(bench: Bench) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(300)))
    bench.table.calls.clear()
    limits = limits_of_looks(bench)
    bench.table.take = lambda pk, sk: bench.table._begin("take")  # type: ignore[method-assign]
    assert bench.claim() is None
    assert limits == [16, 32, 64, 128]
    assert bench.table.calls == ["query", "take", "take", "take"] * 4


@pytest.mark.parametrize(("crowds", "widths"), [(1, [32, 64, 128, 128]), (2, [64, 128, 128, 128])])
def test_no_look_is_wider_than_eight_handfuls_however_large_the_crowd(
    bench: Bench, crowds: int, widths: list[int]
) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(400)))
    other = Pool(bench.table, clock=bench.clock, monotonic=bench.monotonic, choose=lambda _: 0)
    bench.claim()
    for _ in range(crowds - 1):
        other.claim_many(TENANT_A, bench.key, 16, least_seconds=0, on_claim=lambda _: None)
        bench.claim()
    limits = limits_of_looks(bench)
    bench.table.take = lambda pk, sk: None  # type: ignore[method-assign]
    assert bench.claim() is None
    assert limits == widths


def test_a_crowd_that_goes_away_is_forgotten_one_look_after_the_other(bench: Bench) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(400)))
    other = Pool(bench.table, clock=bench.clock, monotonic=bench.monotonic, choose=lambda _: 0)
    bench.claim()
    for _ in range(2):
        other.claim_many(TENANT_A, bench.key, 80, least_seconds=0, on_claim=lambda _: None)
        bench.claim()
    limits = limits_of_looks(bench)
    for _ in range(3):
        bench.clock.now += 5
        bench.claim()
    assert limits == [32, 16, 16]


@pytest.mark.parametrize("count", [10, 20])
def test_a_batch_looks_for_as_many_more_as_it_wants(bench: Bench, count: int) -> None:
    bench.fill(*(bench.token(f"{n}", 400 + n) for n in range(50)))
    limits = limits_of_looks(bench)
    bench.pool.claim_many(TENANT_A, bench.key, count, least_seconds=300, on_claim=lambda _: None)
    assert limits == [count - 1 + 16]


def test_one_token_is_taken_by_the_thread_that_claims_it(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    threads: list[threading.Thread] = []
    bench.table.before = lambda _: threads.append(threading.current_thread())
    assert bench.claim() is not None
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("count", [2, 32])
def test_up_to_thirty_two_tokens_are_taken_at_the_same_time(bench: Bench, count: int) -> None:
    bench.fill(*(bench.token(f"{n}") for n in range(count)))
    all_there = threading.Barrier(count)

    def wait_for_the_others(operation: str) -> None:
        if operation == "take":
            all_there.wait(timeout=10)

    bench.table.before = wait_for_the_others
    got: list[Pooled] = []
    bench.pool.claim_many(TENANT_A, bench.key, count, least_seconds=300, on_claim=got.append)
    assert len(got) == count


def test_a_token_that_ends_in_this_very_moment_is_not_handed_out(bench: Bench) -> None:
    bench.clock.now = float(int(bench.clock.now))
    bench.fill(bench.token("one", 600))

    def late(operation: str) -> None:
        bench.clock.now += 600 if operation == "take" else 0

    bench.table.before = late
    assert bench.claim() is None
    assert bench.wasted == 1


def test_a_claim_that_wasted_one_goes_on_to_the_next(bench: Bench) -> None:
    bench.fill(bench.token("one", 600), bench.token("two", 700))
    took = 0

    def change(operation: str) -> None:
        nonlocal took
        took += operation == "take"
        if operation == "take" and took == 1:
            next(iter(bench.table.items.values()))["public_key"] = "another-key"

    bench.table.before = change
    assert bench.claim() == bench.token("two", 700)
    assert bench.wasted == 1


def test_a_token_that_lives_just_long_enough_counts_when_the_pool_is_tidied(bench: Bench) -> None:
    bench.clock.now = float(int(bench.clock.now))
    bench.fill(bench.token("one", 420))
    assert bench.pool.tidy(TENANT_A, bench.key, least_seconds=420) == (1, 0)
    assert bench.pool.tidy(TENANT_A, bench.key, least_seconds=421) == (0, 0)


def test_what_expired_before_the_pool_is_tidied_is_thrown_away(bench: Bench) -> None:
    bench.fill(bench.token("one", 420))
    bench.clock.now += 421
    assert bench.pool.tidy(TENANT_A, bench.key, least_seconds=0) == (0, 1)
    assert bench.left() == 0


def test_a_purge_throws_away_what_lacks_its_key_too(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    (item,) = bench.table.items.values()
    del item["public_key"]
    assert bench.pool.purge(TENANT_A) == 1


@pytest.mark.parametrize("other", ["!", "~"])
def test_a_purge_of_other_keys_throws_away_each_wherever_it_sorts(bench: Bench, other: str) -> None:
    bench.fill(bench.token("old", public_key=other), bench.token("new"))
    assert bench.pool.purge(TENANT_A, public_key=bench.key.public_key) == 1
    assert bench.claim() == bench.token("new")


def test_an_item_that_says_no_time_is_passed_over_and_tidied_away(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    (item,) = bench.table.items.values()
    item["expires"] = "soon"
    assert bench.claim() is None
    assert bench.pool.tidy(TENANT_A, bench.key, least_seconds=0) == (0, 1)


def test_no_look_reads_a_token_nor_more_than_it_needs(bench: Bench) -> None:
    bench.fill(bench.token("one"), bench.token("two"))
    asked: list[Any] = []
    query = bench.table.query

    def watched(pk: str, **options: Any) -> Any:
        asked.append(options["attributes"])
        return query(pk, **options)

    bench.table.query = watched  # type: ignore[method-assign]
    bench.claim()
    bench.pool.depth(TENANT_A, least_seconds=0)
    bench.pool.tidy(TENANT_A, bench.key, least_seconds=0)
    bench.pool.purge(TENANT_A)
    bench.pool.demand_per_minute(TENANT_A)
    described = ("sk", "expires", "public_key", "account", "tenant", "base_url")
    assert asked == [described, ("expires",), described, ("sk", "public_key"), ("n",)]


def test_patience_begins_anew_with_each_token(bench: Bench) -> None:
    bench.fill(bench.token("one"), bench.token("gone"))
    pool = Pool(bench.table, clock=bench.clock, monotonic=bench.monotonic, choose=lambda _: 0, patience_seconds=2.0)
    looks = 0

    def slow(operation: str) -> None:
        nonlocal looks
        if operation == "query":
            looks += 1
            bench.monotonic.now += 1.5
            if looks == 2:
                bench.fill(bench.token("another"))

    take = bench.table.take

    def lost(pk: str, sk: str) -> Any:
        item = take(pk, sk)
        return None if item is not None and item["token"] == "gone" else item

    bench.table.before = slow
    bench.table.take = lost  # type: ignore[method-assign]
    got: list[Pooled] = []
    pool.claim_many(TENANT_A, bench.key, 2, least_seconds=300, on_claim=got.append)
    assert [one.token.value for one in got] == ["one", "another"]


def test_patience_that_is_used_up_exactly_is_at_its_end(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    pool = Pool(bench.table, clock=bench.clock, monotonic=bench.monotonic, patience_seconds=2.0)
    bench.table.before = lambda _: bench.monotonic.sleep(2.0)
    with pytest.raises(TableUnavailable, match=r"^slow$"):
        pool.claim(TENANT_A, bench.key, least_seconds=300)
    assert bench.left() == 1


def test_every_argument_may_be_given_by_its_name(bench: Bench) -> None:
    pool = Pool(table=bench.table, clock=bench.clock)
    asked: dict[str, Any] = {"credential": TENANT_A, "api_key": bench.key}
    pool.put(credential=TENANT_A, pooled=bench.token("one"))
    pool.put(credential=TENANT_A, pooled=bench.token("two"))
    assert pool.depth(credential=TENANT_A, least_seconds=0) == 2
    assert pool.tidy(**asked, least_seconds=0) == (2, 0)
    assert pool.claim(**asked, least_seconds=0) is not None
    got: list[Pooled] = []
    pool.claim_many(**asked, count=1, least_seconds=0, on_claim=got.append)
    assert (len(got), pool.purge(credential=TENANT_A)) == (1, 0)


@pytest.mark.parametrize("part", ["account", "tenant", "public_key"])
@pytest.mark.parametrize("other", ["!", "~"])
def test_no_token_is_claimed_of_another_key_account_or_tenant_wherever_it_sorts(
    bench: Bench, part: str, other: str
) -> None:
    bench.fill(bench.token("one"))
    (item,) = bench.table.items.values()
    item[part] = other
    assert bench.claim() is None
    assert (bench.wasted, bench.left()) == (0, 1)


def copied(text: str) -> str:
    """The same text, as another object: what comes from DynamoDB always is one."""
    return "".join(list(text))


def test_a_key_is_spared_by_a_purge_for_what_it_says(bench: Bench) -> None:
    bench.fill(bench.token("one"))
    assert bench.pool.purge(TENANT_A, public_key=copied(bench.key.public_key)) == 0


def test_a_large_batch_looks_on_behind_those_of_the_last_key(bench: Bench) -> None:
    bench.fill(*(bench.token(f"old-{n}", 400, public_key="the-last-key") for n in range(320)))
    bench.fill(*(bench.token(f"new-{n}", 500) for n in range(5)))
    got: list[Pooled] = []
    bench.pool.claim_many(TENANT_A, bench.key, 300, least_seconds=300, on_claim=got.append)
    assert len(got) == 5


def test_key_account_and_tenant_are_compared_by_what_they_say(bench: Bench) -> None:
    bench.fill(bench.token("one", public_key=copied(bench.key.public_key), tenant=copied("tenant-a")))
    (item,) = bench.table.items.values()
    item["account"] = copied("account-1")
    assert bench.claim() is not None


def test_a_pooled_token_does_not_change(bench: Bench) -> None:
    with pytest.raises(FrozenInstanceError):
        bench.token("one").base_url = "https://elsewhere.test"  # type: ignore[misc]


def test_another_credentials_name_is_another_pool_in_every_kind_of_item(bench: Bench) -> None:
    other = CredentialId("sandbox", "tenant-b")
    bench.fill(bench.token("one"))
    bench.pool.count_demand(TENANT_A, 1)
    bench.pool.set_level(TENANT_A, 9)
    assert bench.pool.depth(other, least_seconds=0) == 0
    assert bench.pool.demand_per_minute(other) == 0
    assert bench.pool.lower_level(other, 1) == -1
