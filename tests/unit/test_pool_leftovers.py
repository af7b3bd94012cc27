"""What a claim saw and left: it saves the next claims a look, and never hands out, wastes or hides a token."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from imburse_auth import ApiKey, CredentialId
from tests.fakes import secret
from tests.pool_bench import TENANT_A, Bench
from vending.supply.leftovers import CREDENTIALS, KEPT_SECONDS, Leftovers, Seen
from vending.supply.pool import HANDFUL, Pool, Pooled
from vending.table import TableUnavailable

WIDE = 4 * HANDFUL


class Watched(Bench):
    """A bench that tells what each claim cost."""

    def full(self, count: int = 100, life_seconds: float = 400, **changes: Any) -> None:
        """So many tokens, each with a second more than the one before, `0` the soonest to end."""
        self.fill(*(self.token(f"{n}", life_seconds + n, **changes) for n in range(count)))

    def cost(self, least_seconds: int = 300, **options: Any) -> list[str]:
        """The calls of a claim that must answer one."""
        self.table.calls.clear()
        assert self.claim(least_seconds, **options) is not None
        return list(self.table.calls)

    def other(self) -> Pool:
        """Another environment's pool."""
        return Pool(self.table, clock=self.clock, monotonic=self.monotonic, choose=lambda _: 0)

    def other_takes(self, count: int) -> None:
        """Another environment claims that many at once."""
        self.other().claim_many(TENANT_A, self.key, count, least_seconds=0, on_claim=lambda _: None)

    def limits(self) -> list[int | None]:
        """How wide each look from now on is."""
        query, limits = self.table.query, list[int | None]()

        def watched(pk: str, **options: Any) -> Any:
            limits.append(options["limit"])
            return query(pk, **options)

        self.table.query = watched  # type: ignore[method-assign]
        return limits


@pytest.fixture
def bench() -> Watched:
    return Watched()


def test_one_look_does_for_a_handful_of_claims(bench: Watched) -> None:
    bench.full()
    costs = [bench.cost() for _ in range(HANDFUL + 1)]
    assert costs == [["query", "take"], *[["take"]] * (HANDFUL - 1), ["query", "take"]]


def test_claims_in_a_row_answer_the_soonest_to_expire_in_their_order(bench: Watched) -> None:
    bench.full(40)
    assert [one and one.token.value for one in (bench.claim() for _ in range(41))] == [*map(str, range(40)), None]


def test_the_lots_fall_on_all_that_is_left(bench: Watched) -> None:
    bench.full()
    asked: list[int] = []
    pool = Pool(bench.table, clock=bench.clock, choose=lambda n: asked.append(n) or n - 1)  # type: ignore[func-returns-value]
    claimed = [pool.claim(TENANT_A, bench.key, least_seconds=0) for _ in range(3)]
    assert [one and one.token.value for one in claimed] == ["15", "14", "13"]
    assert asked == [HANDFUL, HANDFUL - 1, HANDFUL - 2]


def test_what_comes_into_a_pool_that_was_emptied_is_found_at_once(bench: Watched) -> None:
    bench.full(2)
    bench.claim()
    bench.claim()
    assert bench.claim() is None
    bench.full(1)
    assert bench.claim() is not None


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [
        (KEPT_SECONDS - 0.01, ["take"]),
        (KEPT_SECONDS, ["query", "take"]),
        (3600 * 24, ["query", "take"]),
        (-0.01, ["query", "take"]),
        (-3600 * 24, ["query", "take"]),
    ],
)
def test_it_serves_for_five_seconds_and_not_when_the_clock_was_set(
    bench: Watched, seconds: float, calls: list[str]
) -> None:
    bench.full(life_seconds=3600 * 48)
    bench.claim()
    bench.clock.now += seconds
    assert bench.cost() == calls


def test_it_is_as_old_as_its_look_however_often_it_served(bench: Watched) -> None:
    bench.full()
    bench.claim()
    for _ in range(4):
        bench.clock.now += KEPT_SECONDS / 4 - 0.01
        assert bench.cost() == ["take"]
    bench.clock.now += 0.1
    assert bench.cost() == ["query", "take"]


def test_its_age_is_counted_from_before_the_look(bench: Watched) -> None:
    bench.full()

    def slow(operation: str) -> None:
        bench.clock.now += KEPT_SECONDS

    bench.table.before = slow
    bench.claim()
    bench.table.before = lambda _: None
    assert bench.cost() == ["query", "take"]


CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"publicKey": "the-next-key"}, {}),
    ({"accountId": "account-2"}, {}),
    ({"tenantId": "tenant-b"}, {}),
    ({"tenantId": None}, {}),
    ({}, {"base_url": "https://gone.test"}),
]


@pytest.mark.parametrize(("of_key", "options"), CHANGES, ids=str)
def test_a_key_tenant_or_host_that_came_instead_gets_nothing_of_it_and_wastes_nothing(
    bench: Watched, of_key: dict[str, Any], options: dict[str, Any]
) -> None:
    bench.full()
    bench.claim()
    known, bench.key = bench.key, ApiKey.from_secret(json.dumps(secret(**{**bench.members, **of_key})))
    bench.table.calls.clear()
    assert bench.claim(**options) is None
    assert set(bench.table.calls) == {"query"}
    assert (bench.wasted, bench.left()) == (0, 99)
    bench.key = known
    assert bench.cost() == ["query", "take"], "nor is it served when the former one comes back"


def test_a_host_that_is_asked_for_is_not_served_what_was_seen_for_any(bench: Watched) -> None:
    bench.full(10, base_url="https://gone.test")
    assert bench.claim() is not None
    assert bench.claim(base_url="https://here.test") is None
    assert (bench.wasted, bench.left()) == (0, 9)


def test_who_wants_a_longer_life_is_served_what_has_it_and_the_rest_is_kept(bench: Watched) -> None:
    bench.full()
    bench.claim()
    bench.table.calls.clear()
    claimed = [bench.claim(least) for least in (405, 300, 405, 410, 300)]
    assert [one and one.token.value for one in claimed] == ["5", "1", "6", "10", "2"]
    assert bench.table.calls == ["take"] * 5


def test_who_takes_a_shorter_life_gets_the_soonest_to_expire_and_not_what_was_seen_behind_it(bench: Watched) -> None:
    bench.full()
    assert [bench.claim(450), bench.claim(300)] == [bench.token("50", 450), bench.token("0", 400)]


def test_what_lives_too_short_by_now_is_not_tried(bench: Watched) -> None:
    bench.fill(*(bench.token(f"{n}", 300 + n) for n in range(20)))
    bench.claim()
    bench.clock.now += 4.5
    claimed = bench.claim()
    assert claimed is not None
    assert claimed.token.expires - bench.clock() >= 300
    assert (claimed.token.value, bench.wasted, bench.left()) == ("5", 0, 18)


def test_one_that_is_gone_costs_a_call_and_then_a_look_twice_as_wide(bench: Watched) -> None:
    bench.full(400)
    limits = bench.limits()
    for _ in range(4):
        bench.claim()
        bench.other_takes(HANDFUL)
        assert bench.cost() == ["take", "query", "take"]
    others = HANDFUL - 1 + HANDFUL
    assert [limit for limit in limits if limit != others] == [HANDFUL, 2 * HANDFUL, WIDE, WIDE, WIDE]
    assert bench.wasted == 0


def test_no_look_in_a_crowd_is_wider_than_the_widest_without(bench: Watched) -> None:
    bench.full(400)
    for _ in range(3):
        bench.claim()
        bench.other_takes(HANDFUL)
    for item in bench.table.items.values():
        item["public_key"] = "another-key"
    limits = bench.limits()
    assert bench.claim() is None
    assert limits == [WIDE, 2 * WIDE, 2 * WIDE, 2 * WIDE]


def test_who_is_alone_again_looks_no_wider_than_ever(bench: Watched) -> None:
    bench.full(400)
    bench.claim()
    bench.other_takes(HANDFUL)
    bench.claim()
    limits = bench.limits()
    for _ in range(3):
        bench.clock.now += KEPT_SECONDS
        bench.claim()
    assert limits == [HANDFUL] * 3


def test_all_of_it_is_forgotten_with_one_that_is_gone(bench: Watched) -> None:
    bench.full(HANDFUL)
    bench.claim()
    bench.other_takes(HANDFUL)
    bench.table.calls.clear()
    assert bench.claim() is None
    assert bench.table.calls == ["take", "query"]
    bench.table.calls.clear()
    assert bench.claim() is None
    assert bench.table.calls == ["query"]


@pytest.mark.parametrize("failure", [TableUnavailable("ReadTimeoutError"), RuntimeError("bug")])
def test_it_is_forgotten_when_the_table_fails_so_that_an_outage_wastes_one_and_not_all(
    bench: Watched, failure: Exception
) -> None:
    bench.full()
    bench.claim()
    take = bench.table.take

    def lost(pk: str, sk: str) -> None:
        take(pk, sk)
        raise failure

    bench.table.take = lost  # type: ignore[method-assign]
    with pytest.raises(type(failure)):
        bench.claim()
    bench.table.take = take  # type: ignore[method-assign]
    assert bench.left() == 98
    assert bench.cost() == ["query", "take"]


def test_it_makes_no_call_after_three_hundred_milliseconds(bench: Watched) -> None:
    bench.full()
    bench.claim()
    bench.other_takes(HANDFUL)

    def slow(operation: str) -> None:
        bench.monotonic.now += 0.31

    bench.table.calls.clear()
    bench.table.before = slow
    with pytest.raises(TableUnavailable, match="slow"):
        bench.claim()
    assert bench.table.calls == ["take"]


def test_an_item_that_was_changed_since_the_look_is_not_handed_out(bench: Watched) -> None:
    bench.full(2)
    bench.claim()
    for item in bench.table.items.values():
        item["public_key"] = "another-key"
    assert bench.claim() is None
    assert bench.wasted == 1


def test_a_token_that_expires_while_it_is_taken_is_not_handed_out(bench: Watched) -> None:
    bench.full(2, life_seconds=3)
    bench.claim(0)

    def late(operation: str) -> None:
        if operation == "take":
            bench.clock.now += 1000

    bench.table.before = late
    assert bench.claim(0) is None
    assert (bench.wasted, bench.left()) == (1, 0)


def test_a_purge_is_seen_here_at_once_and_elsewhere_at_the_first_try(bench: Watched) -> None:
    other = bench.other()
    bench.full()
    bench.claim()
    other.claim(TENANT_A, bench.key, least_seconds=300)
    bench.pool.purge(TENANT_A)
    bench.table.calls.clear()
    assert bench.claim() is None
    assert bench.table.calls == ["query"]
    bench.fill(bench.token("after the thaw"))
    claimed = other.claim(TENANT_A, bench.key, least_seconds=300)
    assert claimed is not None
    assert claimed.token.value == "after the thaw"


def test_a_batch_is_served_from_it_whole_or_looks_at_once(bench: Watched) -> None:
    bench.full()
    bench.claim()
    got: list[Pooled] = []

    def batch(count: int) -> list[str]:
        bench.table.calls.clear()
        bench.pool.claim_many(TENANT_A, bench.key, count, least_seconds=300, on_claim=got.append)
        return list(bench.table.calls)

    assert batch(8) == ["take"] * 8
    assert batch(8) == ["query", *["take"] * 8]
    assert batch(HANDFUL - 1) == ["take"] * (HANDFUL - 1)
    assert len({one.token.value for one in got}) == 8 + 8 + HANDFUL - 1


def test_a_batch_of_which_some_are_gone_gets_the_rest_by_a_look(bench: Watched) -> None:
    bench.full()
    bench.claim()
    bench.other_takes(5)
    got: list[Pooled] = []
    bench.pool.claim_many(TENANT_A, bench.key, 8, least_seconds=300, on_claim=got.append)
    assert len({one.token.value for one in got}) == 8
    assert bench.left() == 100 - 1 - 5 - 8


def test_who_claims_while_another_thread_does_tries_nothing_that_the_other_may_try(bench: Watched) -> None:
    bench.full()
    bench.claim()
    calls: list[list[str]] = []

    def meanwhile(operation: str) -> None:
        bench.table.before = lambda _: None
        calls.append(bench.cost())

    bench.table.before = meanwhile
    assert bench.claim() is not None
    assert calls == [["query", "take"]]


def test_pools_are_remembered_apart(bench: Watched) -> None:
    other = CredentialId("sandbox", "tenant-b")
    bench.full()
    bench.fill(bench.token("other"), credential=other)
    bench.claim()
    claimed = bench.pool.claim(other, bench.key, least_seconds=300)
    assert claimed is not None
    assert claimed.token.value == "other"
    assert bench.cost() == ["take"]


def test_no_more_than_a_hundred_credentials_are_remembered_and_the_longest_unused_goes_first() -> None:
    leftovers, seen = Leftovers(), Seen(whose=("key",), sort_keys=["1"])
    many = [CredentialId("sandbox", f"tenant-{n}") for n in range(CREDENTIALS + 1)]
    for credential in many[:-1]:
        leftovers.put(credential, seen)
    leftovers.put(many[0], seen)
    leftovers.put(many[-1], seen)
    assert [leftovers.pop(credential) for credential in many] == [seen, Seen(), *[seen] * (CREDENTIALS - 1)]
    assert leftovers.pop(many[0]) == Seen()


def test_no_token_is_remembered_nor_more_than_a_few_looks_sort_keys(bench: Watched) -> None:
    bench.fill(*(bench.token(f"the-value-{n}") for n in range(1000)))
    got: list[Pooled] = []
    bench.pool.claim_many(TENANT_A, bench.key, 500, least_seconds=300, on_claim=got.append)
    seen = bench.pool._leftovers.pop(TENANT_A)
    assert len(seen.sort_keys) == HANDFUL - 1
    assert "the-value" not in repr(seen)


def calls_a_claim(environments: int, *, remember: Callable[[Pool], object]) -> float:
    """What claims cost if that many environments make them in turn."""
    bench, lots = Watched(), random.Random(7)
    claims = 48 * environments
    bench.full(claims + WIDE)
    pools = [Pool(bench.table, clock=bench.clock, choose=lots.randrange) for _ in range(environments)]
    bench.table.calls.clear()
    for number in range(claims):
        pool = pools[number % environments]
        remember(pool)
        assert pool.claim(TENANT_A, bench.key, least_seconds=300) is not None
    return len(bench.table.calls) / claims


@pytest.mark.parametrize(("environments", "at_most"), [(1, 1.07), (2, 1.3), (4, 1.5), (8, 1.7), (16, 1.9)])
def test_claims_cost_fewer_calls_than_a_look_each_though_other_environments_claim_too(
    environments: int, at_most: float
) -> None:
    assert calls_a_claim(environments, remember=lambda pool: pool._leftovers.pop(TENANT_A)) == 2
    assert calls_a_claim(environments, remember=lambda _: None) <= at_most
