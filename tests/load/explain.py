"""What stands behind a failure, and how soon after it the last one was."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.load.conduct import Happened, Outcome
from tests.load.plan import BUDGETED, FAULTS, KILLED, KINDS, RECOVERY_SECONDS, Kind
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
            number = next(
                (
                    n
                    for n in reversed(range(len(found)))
                    if code in FAULTS[found[n].happened.fault]
                    and found[n].happened.began <= visit.ended
                    and _about(found[n].happened, visit)
                ),
                None,
            )
            if number is not None:
                found[number].failed[code] += 1
                lasts[number] = max(lasts.get(number, 0.0), visit.ended)
    return [
        Recovery(one.happened, one.failed, max(0.0, lasts.get(n, 0.0) - one.happened.ended))
        for n, one in enumerate(found)
    ]


def explains(outcome: Outcome, visit: Visit, code: str) -> bool:
    """Whether a fault that was in force or just over, a kill, a spent budget or a caller's rights explain a failure."""
    kind = kind_of(visit)
    if code in KILLED:
        return any(
            kill.function == ("api" if kind.door == "api" else "vend")
            and kill.at <= visit.ended <= kill.at + outcome.plan.kill_seconds
            for kill in outcome.kills
        )
    if code == "over_budget":
        return kind.credential == BUDGETED
    if code == "not_authorized":
        return kind.refused
    return any(
        code in FAULTS[happened.fault]
        and _about(happened, visit)
        and happened.began <= visit.ended
        and visit.started <= happened.ended + outcome.plan.explained_seconds
        for happened in outcome.faults
    )


def _about(happened: Happened, visit: Visit) -> bool:
    """Whether the fault can be behind this visit at all: a replaced key is of one credential, repeats hurt who inspects."""
    if happened.fault == "key replaced":
        return visit.kind == "replaced key"
    return visit.kind == "inspect" or visit.code != "upstream_rejected"
