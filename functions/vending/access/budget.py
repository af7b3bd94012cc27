"""How much may they have? What the `@budget` of a rule allows, counted for all execution environments together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from imburse_auth.credential import CredentialId
from vending.access.caller import Caller
from vending.access.limit import Budget
from vending.access.policy import Decision
from vending.errors import OverBudget
from vending.table import Table, TableUnavailable

KEPT_SECONDS = 3_600  # a counter outlives its window by that: nobody reads it then, and DynamoDB drops it when it likes


class Budgets:
    """The counters: one item a caller, credential, rule and window, added to under a condition.

    Availability over exactness: a counter that cannot be reached lets the call pass, and `on_unavailable` counts it.
    `on_used` is told how full the fullest counter of a call is afterwards, in percent; 100 if it refused.
    What was asked for counts, also if it does not come: a caller that hammers a broken upstream spends its budget too.
    """

    def __init__(
        self,
        table: Table,
        *,
        clock: Callable[[], float] = time.time,
        on_unavailable: Callable[[], None] = lambda: None,
        on_used: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._table = table
        self._clock = clock
        self._on_unavailable = on_unavailable
        self._on_used = on_used

    def spend(self, caller: Caller, credential: CredentialId, decision: Decision, count: int) -> None:
        """Count `count` tokens under each rule that allowed them, all or none.

        Raises OverBudget if one of them has no room, with the seconds until its window ends. A batch is not cut to size:
        the caller asked for all of it.
        """
        now = self._clock()
        spent: list[Budget] = []
        used_percent: list[float] = []
        try:
            for budget in decision.budgets:
                used = self._add(caller, credential, budget, count, now)
                if used is None:
                    used_percent.append(100.0)
                    self._give_back(caller, credential, spent, count, now)
                    raise _over(budget, count, now)
                spent.append(budget)
                used_percent.append(100 * used / budget.limit)
        except TableUnavailable:
            self._on_unavailable()
        finally:
            if used_percent:
                self._on_used(max(used_percent))

    def _give_back(self, caller: Caller, credential: CredentialId, spent: list[Budget], count: int, now: float) -> None:
        # If this fails the caller has a little less than its budget until the window ends, never more.
        try:
            for budget in spent:
                self._add(caller, credential, budget, -count, now)
        except TableUnavailable:
            self._on_unavailable()

    def _add(self, caller: Caller, credential: CredentialId, budget: Budget, count: int, now: float) -> int | None:
        start = _window_start(budget, now)
        return self._table.add(
            # The parts stay apart: neither a caller's nor a credential's id can hold a '#'.
            f"budget#{caller.id}#{credential}#{budget.policy_id}",
            f"{start:010d}",
            count,
            ttl=start + budget.window_seconds + KEPT_SECONDS,
            at_most=budget.limit if count > 0 else None,
        )


def _window_start(budget: Budget, now: float) -> int:
    return int(now) // budget.window_seconds * budget.window_seconds


def _over(budget: Budget, count: int, now: float) -> OverBudget:
    until_seconds = _window_start(budget, now) + budget.window_seconds - now
    detail = "the budget of this caller for this credential is spent"
    if count > budget.limit:
        detail = "this is more at once than the budget of this caller for this credential ever allows; ask for fewer"
    return OverBudget(
        detail, reason=f"budget of {budget.policy_id}", retry_after_seconds=max(1, math.ceil(until_seconds))
    )
