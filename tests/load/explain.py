"""What stands behind a failure, and how soon after it the last one was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.load.conduct import Happened, Outcome
from tests.load.plan import (
    BUDGET_PER_MINUTE,
    BUDGETED,
    FAULTS,
    FUNCTION,
    KILLED,
    KINDS,
    RECOVERY_SECONDS,
    Kind,
)
from tests.load.trail import Trail
from tests.load.visit import Visit

_KINDS = {(kind.name, kind.door): kind for kind in KINDS}


@dataclass(frozen=True)
class Recovery:
    """Of one fault: the failures it explains, by code, and seconds from its end to the end of the last of them."""

    happened: Happened
    failed: Counter[str]
    seconds: float

    @property
    def in_time(self) -> bool:
        """Whether everybody was served again as soon as is promised."""
        return self.seconds <= RECOVERY_SECONDS


def kind_of(visit: Visit) -> Kind:
    """How its caller calls."""
    return _KINDS[visit.kind, visit.door]


def codes(visit: Visit) -> list[str]:
    """What went wrong with it as a whole, and with parts of a batch."""
    return [*([visit.code] if visit.code else []), *visit.failures]


def recoveries(outcome: Outcome) -> list[Recovery]:
    """Each fault with what it cost. A failure counts for the last fault with its code that had begun before it ended."""
    found = [Recovery(happened, Counter(), 0.0) for happened in outcome.faults]
    lasts: dict[int, float] = {}
    for visit in outcome.visits:
        for code in codes(visit):
            behind = (
                n
                for n in reversed(range(len(found)))
                if _may_cause(found[n].happened, visit, code) and found[n].happened.began <= visit.ended
            )
            number = next(behind, None)
            if number is not None:
                found[number].failed[code] += 1
                lasts[number] = max(lasts.get(number, 0.0), visit.ended)
    return [
        Recovery(one.happened, one.failed, max(0.0, lasts.get(n, 0.0) - one.happened.ended))
        for n, one in enumerate(found)
    ]


def unexplained(outcome: Outcome, trail: Trail) -> Iterator[tuple[Visit, str]]:
    """The failures with no fault in force or just over, no kill, no spent budget and no missing right behind them."""
    killed = _killed(outcome)
    for number, visit in enumerate(outcome.visits):
        for code in codes(visit):
            if code in KILLED:
                explained = number in killed
            elif code == "over_budget":
                explained = _spent(outcome, trail, visit)
            elif code == "not_authorized":
                explained = kind_of(visit).refused
            else:
                explained = any(_explains(outcome, happened, visit, code) for happened in outcome.faults)
            if not explained:
                yield visit, code


def _explains(outcome: Outcome, happened: Happened, visit: Visit, code: str) -> bool:
    since, until = happened.began, happened.ended + outcome.plan.explained_seconds
    return _may_cause(happened, visit, code) and since <= visit.ended and visit.started <= until


def _may_cause(happened: Happened, visit: Visit, code: str) -> bool:
    """Whether the fault can be behind it at all: a replaced key is of one credential, repeats are refused to who inspects."""
    if code not in FAULTS[happened.fault]:
        return False
    if happened.fault == "key replaced":
        return visit.kind == "replaced key"
    return visit.kind == "inspect" or code != "upstream_rejected"


def _killed(outcome: Outcome) -> set[int]:
    """The numbers of visits that died with their environment: at most one for each kill, since it has one visit at a time.

    Each kill takes whichever of those under way at its door ended first, which leaves most to the later ones.
    """
    dead = sorted((visit.ended, number) for number, visit in enumerate(outcome.visits) if visit.code in KILLED)
    found: set[int] = set()
    for kill in sorted(outcome.kills, key=lambda kill: kill.at):
        for ended, number in dead:
            visit = outcome.visits[number]
            under_way = visit.started <= kill.at <= ended <= kill.at + outcome.plan.kill_seconds
            if number not in found and FUNCTION[visit.door] == kill.function and under_way:
                found.add(number)
                break
    return found


def _spent(outcome: Outcome, trail: Trail, refused: Visit) -> bool:
    """Whether those before it spent its caller's budget of a minute that it may have been counted in.

    They are all that have another record than that they were over it, and those whose environment died before they had one.
    """
    spent: Counter[int] = Counter()
    for visit in outcome.visits:
        if (visit.door, visit.credential) != (refused.door, BUDGETED) or visit.started > refused.ended:
            continue
        records = trail.by_request.get(visit.request_id or "", [])
        if visit.code in KILLED or any(record.error != "over_budget" for record in records):
            spent.update(visit.minutes())
    return refused.credential == BUDGETED and any(spent[at] >= BUDGET_PER_MINUTE for at in refused.minutes())
