from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from imburse_auth import CredentialId
from tests.fake_table import FakeTable
from tests.fakes import NOW, Clock
from vending.access.budget import KEPT_SECONDS, Budgets
from vending.access.caller import Caller
from vending.access.limit import Budget
from vending.access.policy import Decision
from vending.errors import OverBudget
from vending.table import TableUnavailable

TENANT_A, TENANT_B = CredentialId("sandbox", "tenant-a"), CredentialId("sandbox", "tenant-b")
ORDERS, REFUNDS = (
    Caller(f"arn:aws:iam::123456789012:role/{role}", "123456789012", "api") for role in ("orders", "refunds")
)
MINUTE_START = int(NOW) // 60 * 60


def allowed(*budgets: Budget) -> Decision:
    return Decision(True, tuple(budget.policy_id for budget in budgets), budgets)


TEN = Budget("ten", 10, 60)


class Bench:
    """Budgets on a fake table, at the start of a minute."""

    def __init__(self) -> None:
        self.table = FakeTable()
        self.clock = Clock(MINUTE_START)
        self.unavailable: list[None] = []
        self.used_percent: list[float] = []
        self.budgets = self.environment()

    def environment(self) -> Budgets:
        """What another execution environment has."""
        return Budgets(
            self.table,
            clock=self.clock,
            on_unavailable=lambda: self.unavailable.append(None),
            on_used=self.used_percent.append,
        )

    def spend(
        self, count: int = 1, *budgets: Budget, caller: Caller = ORDERS, credential: CredentialId = TENANT_A
    ) -> None:
        self.budgets.spend(caller, credential, allowed(*(budgets or (TEN,))), count)

    def refused(self, count: int = 1, *budgets: Budget, **who: Any) -> OverBudget:
        with pytest.raises(OverBudget) as refusal:
            self.spend(count, *budgets, **who)
        return refusal.value

    def spent(self, policy_id: str = "ten", caller: Caller = ORDERS) -> list[int]:
        return [int(item["n"]) for item in self.table.partition(f"budget#{caller.id}#{TENANT_A}#{policy_id}")]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_fits_the_budget_passes_and_the_next_does_not(bench: Bench) -> None:
    for _ in range(10):
        bench.spend()
    refusal = bench.refused()
    assert (refusal.code, refusal.status, refusal.retryable) == ("over_budget", 429, True)
    assert bench.spent() == [10]


def test_without_a_budget_nothing_is_counted(bench: Bench) -> None:
    bench.budgets.spend(ORDERS, TENANT_A, Decision(True, ("unlimited",)), 500)
    assert bench.table.calls == []


def test_a_batch_counts_by_its_tokens_and_is_not_cut_to_size(bench: Bench) -> None:
    bench.spend(7)
    bench.refused(4)
    bench.spend(3)
    bench.refused(1)


def test_a_batch_above_the_whole_budget_is_told_to_ask_for_fewer(bench: Bench) -> None:
    assert "ask for fewer" in bench.refused(11).detail
    assert bench.spent() == []
    bench.spend(10)
    assert "ask for fewer" not in bench.refused(10).detail


@pytest.mark.parametrize(("into_it", "retry_after"), [(0.0, 60), (0.5, 60), (59.0, 1), (59.9, 1)])
def test_retry_after_is_when_the_window_ends(bench: Bench, into_it: float, retry_after: int) -> None:
    bench.clock.now += into_it
    bench.spend(10)
    assert bench.refused().retry_after_seconds == retry_after
    bench.clock.now += retry_after
    bench.spend(10)


def test_a_new_window_has_its_own_counter_and_the_old_one_is_dropped_in_time(bench: Bench) -> None:
    bench.spend(10)
    bench.clock.now += 60
    bench.spend(1)
    assert bench.spent() == [10, 1]
    first, _second = bench.table.partition(f"budget#{ORDERS.id}#{TENANT_A}#ten")
    assert first["sk"] == f"{MINUTE_START:010d}"
    assert first["ttl"] == MINUTE_START + 60 + KEPT_SECONDS


def test_callers_credentials_and_rules_have_budgets_of_their_own(bench: Bench) -> None:
    bench.spend(10)
    bench.spend(10, caller=REFUNDS)
    bench.spend(10, credential=TENANT_B)
    bench.spend(10, Budget("other", 10, 60))
    bench.refused()


def test_a_caller_who_may_do_it_by_one_door_has_the_same_budget_by_the_other(bench: Bench) -> None:
    bench.spend(10)
    bench.refused(caller=Caller(ORDERS.id, ORDERS.account, "api", "10.9.9.9", "vpce-1"))


def test_every_budget_must_have_room(bench: Bench) -> None:
    hour = Budget("hour", 15, 3600)
    bench.spend(10, TEN, hour)
    bench.clock.now += 60
    assert bench.refused(10, TEN, hour).reason == "budget of hour"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_one_budget_refuses_is_given_back_to_the_others(bench: Bench, order: tuple[int, int]) -> None:
    both = (TEN, Budget("three", 3, 60))
    budgets = [both[n] for n in order]
    bench.refused(5, *budgets)
    assert sum(bench.spent("ten")) == sum(bench.spent("three")) == 0
    bench.spend(3, *budgets)
    assert sum(bench.spent("ten")) == sum(bench.spent("three")) == 3


def test_many_environments_together_never_exceed_it(bench: Bench) -> None:
    limit = Budget("limit", 100, 86_400)

    def environment(_: int) -> int:
        budgets, passed = bench.environment(), 0
        for _attempt in range(20):
            try:
                budgets.spend(ORDERS, TENANT_A, allowed(limit), 3)
                passed += 3
            except OverBudget:
                pass
        return passed

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(environment, range(16))) == 99
    assert bench.spent("limit") == [99]


def test_a_counter_that_cannot_be_reached_lets_the_call_pass_and_is_counted(bench: Bench) -> None:
    bench.spend(10)
    bench.table.failure = TableUnavailable("ProvisionedThroughputExceededException")
    bench.spend(500)
    assert len(bench.unavailable) == 1
    bench.table.failure = None
    bench.refused()


def test_a_counter_that_fails_halfway_still_refuses_and_never_gives_more(bench: Bench) -> None:
    three = Budget("three", 3, 60)
    calls = 0

    def third_fails(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise TableUnavailable("ReadTimeoutError")

    bench.table.before = third_fails
    bench.refused(5, TEN, three)
    assert bench.spent("ten") == [5]  # not given back
    assert len(bench.unavailable) == 1
    bench.refused(6)


def test_the_fullest_budget_says_how_much_is_used_and_one_that_refuses_is_full(bench: Bench) -> None:
    hour = Budget("hour", 80, 3600)
    bench.spend(5, TEN, hour)
    bench.spend(3, hour, TEN)
    bench.refused(3, TEN, hour)
    bench.refused(3, hour, TEN)
    bench.clock.now += 60
    bench.spend(2, TEN, hour)
    assert bench.used_percent == [50, 80, 100, 100, 20]


def test_how_much_is_used_costs_no_call_and_is_not_told_without_a_budget(bench: Bench) -> None:
    bench.spend(5, TEN, Budget("hour", 80, 3600))
    assert len(bench.table.calls) == 2
    bench.budgets.spend(ORDERS, TENANT_A, Decision(True, ("unlimited",)), 500)
    assert bench.used_percent == [50]


def test_a_counter_that_cannot_be_reached_tells_nothing_of_its_use(bench: Bench) -> None:
    bench.table.failure = TableUnavailable("ReadTimeoutError")
    bench.spend(5)
    assert bench.used_percent == []


def test_nothing_of_the_rule_is_told_to_the_caller(bench: Bench) -> None:
    bench.spend(10)
    refusal = bench.refused()
    assert "ten" not in refusal.detail
    assert "10" not in refusal.detail
    assert refusal.reason == "budget of ten"
