"""What a load run must show: each rule of it, with its evidence and whatever speaks against it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

from local.stack import PROJECT
from tests.load.conduct import Outcome
from tests.load.explain import kind_of, recoveries, unexplained
from tests.load.judge_books import budgeted, chained, pooled, recorded
from tests.load.measures import growths_mib
from tests.load.plan import FUNCTION, GROWTH_MIB, KILLED, MOST_GROWTH_MIB, REPEATED, SHARED
from tests.load.trail import Trail
from tests.load.verdict import Verdict, counts

_USED_BEFORE = "ACCESS_TOKEN_ALREADY_USED"
_ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \| `(\w+)` \|", re.MULTILINE)


def judge(outcome: Outcome, trail: Trail) -> list[Verdict]:
    """Every rule."""
    judges: list[Callable[[Outcome, Trail], Verdict]] = [
        happened, once, used_once, right, documented, explained, recovered, recorded, chained, budgeted, pooled, memory,
    ]  # fmt: skip
    return [one(outcome, trail) for one in judges]


def documented_errors(readme: Path = PROJECT / "README.md") -> dict[str, tuple[int, str]]:
    """Status and error type by code, from the README's table "What goes wrong"."""
    return {code: (int(status), kind) for code, status, kind in _ROW.findall(readme.read_text(encoding="utf-8"))}


def happened(outcome: Outcome, trail: Trail) -> Verdict:
    """All that was to go wrong did: each fault befell somebody, and each door lost environments."""
    faults = Counter(one.fault for one in outcome.faults if one.met)
    kills = Counter(kill.function for kill in outcome.kills)
    verdict = Verdict("all went wrong that was to", f"{sum(faults.values())} faults met; killed: {counts(kills)}")
    planned = Counter(name for _, _, name in outcome.plan.faults())
    verdict.against += [f"{fault}: met by nobody" for fault in (planned - faults)]
    if outcome.plan.seconds >= outcome.plan.kill_every_seconds:
        verdict.against += [f"no environment of {one} was killed" for one in FUNCTION.values() if not kills[one]]
    return verdict


def once(outcome: Outcome, trail: Trail) -> Verdict:
    """Nothing was vended twice, but what is shared, and what Imburse itself answered more than once."""
    given = Counter(t for v in outcome.visits if v.credential != SHARED for t in v.tokens)
    shared = Counter(t for v in outcome.visits if v.credential == SHARED for t in v.tokens)
    twice = {token: times for token, times in given.items() if times > 1}
    verdict = Verdict(
        "nothing vended twice",
        f"{sum(given.values())} tokens handed out, {len(given)} different; {sum(shared.values())} times a shared one,"
        f" {len(shared)} different; {len(twice)} that Imburse had repeated, by different environments",
    )
    for token, times in twice.items():
        environments = [record.environment for record in trail.by_token[token]]
        if outcome.issued[token] < times:
            verdict.against.append(f"{token[:12]} handed out {times} times, issued {outcome.issued[token]} times")
        elif len(set(environments)) < len(environments):
            verdict.against.append(f"{token[:12]} handed out twice by one environment")
    verdict.against += [f"{token[:12]} both shared and not" for token in given.keys() & shared.keys()]
    unknown = [token for token in given.keys() | shared.keys() if not outcome.issued[token]]
    verdict.against += [f"{token[:12]} was never issued" for token in unknown]
    return verdict


def used_once(outcome: Outcome, trail: Trail) -> Verdict:
    """Imburse, which takes each token once, took each that was handed out, but for those that it had repeated.

    And it refused no more and no fewer than that: an inspection uses its token itself, and may die before it can tell.
    """
    uses = Counter(what for visit in outcome.visits for _, what in visit.uses)
    inspected = Counter(visit.code for visit in outcome.visits if visit.kind == "inspect")
    seen = uses[_USED_BEFORE] + inspected["upstream_rejected"]
    refused = int(outcome.statistics["tokensRefused"])
    repeated = sum(times - 1 for times in outcome.issued.values())
    verdict = Verdict(
        "each token good for its one use",
        f"{uses['used']} used, {seen} refused as used before, by Imburse's count {refused}; {repeated} repeated by it",
    )
    for visit in outcome.visits:
        for token, what in visit.uses:
            if what != "used" and not (what == _USED_BEFORE and outcome.issued[token] > 1):
                verdict.against.append(f"{token[:12]} {what}")
    if not seen <= refused <= seen + sum(inspected[code] for code in KILLED):
        verdict.against.append(f"{refused} refused by Imburse's count, {seen} by ours")
    if repeated > sum(one.met for one in outcome.faults if one.fault == REPEATED):
        verdict.against.append(f"{repeated} repeated, more than it was told to")
    if nonces := outcome.statistics["noncesRefused"]:
        verdict.against.append(f"{nonces} nonces used twice")
    return verdict


def right(outcome: Outcome, trail: Trail) -> Verdict:
    """No answer was another than documented."""
    verdict = Verdict("no wrong answer", f"{len(outcome.visits)} answers looked at to the letter")
    for visit in outcome.visits:
        verdict.against += [f"{visit.door} {visit.kind}: {what}" for what in visit.wrong]
        kind = kind_of(visit)
        if kind.refused != (visit.code == "not_authorized") and visit.code not in KILLED:
            verdict.against.append(f"{visit.door} {visit.kind}: {visit.code}")
    return verdict


def documented(outcome: Outcome, trail: Trail) -> Verdict:
    """Every failure is a row of the README's table, or Lambda's own at a kill."""
    table = documented_errors()
    whole = Counter(visit.code for visit in outcome.visits if visit.code)
    parts = Counter(code for visit in outcome.visits for code, n in visit.failures.items() for _ in range(n))
    verdict = Verdict(
        "every failure documented", f"{sum(whole.values())} visits: {counts(whole)}; in batches {counts(parts)}"
    )
    for visit in outcome.visits:
        verdict.against += [f"{code} in a batch" for code in visit.failures if code not in table]
        if visit.code is None or visit.code in KILLED:
            continue
        status, error_type = table.get(visit.code, (0, ""))
        if visit.status != status or (visit.door == "invoke" and visit.error_type != error_type):
            verdict.against.append(f"{visit.code} with {visit.status} {visit.error_type or ''}")
        if status in (429, 503) and not visit.retry_after:
            verdict.against.append(f"{visit.code} by {visit.door} without Retry-After")
    return verdict


def explained(outcome: Outcome, trail: Trail) -> Verdict:
    """Every failure has a fault that was in force or just over, a kill, or a budget that was spent."""
    verdict = Verdict("every failure explained", f"{len(outcome.faults)} faults, {len(outcome.kills)} kills")
    for visit, code in unexplained(outcome, trail):
        at = visit.ended - outcome.began
        verdict.against.append(f"{code} by {visit.door}, {visit.kind}, at {at:.1f} s")
    return verdict


def recovered(outcome: Outcome, trail: Trail) -> Verdict:
    """After each fault everybody was served again in time, and at the end each kind of caller was."""
    found = recoveries(outcome)
    slowest = max((one.seconds for one in found), default=0.0)
    verdict = Verdict(
        "served again within 10 s of each fault's end",
        f"{slowest:.1f} s at most" + ("" if outcome.plan.judge_recovery else ", not judged in a short run"),
    )
    if not outcome.settled:
        verdict.against.append(f"not everybody was served {outcome.plan.settle_seconds:.0f} s after the last fault")
    if outcome.plan.judge_recovery:
        late = [one for one in found if not one.in_time]
        verdict.against += [f"{one.happened.fault}: {one.seconds:.1f} s, {counts(one.failed)}" for one in late]
    return verdict


def memory(outcome: Outcome, trail: Trail) -> Verdict:
    """Environments that lived through the second half hold hardly more at its end than at its beginning."""
    grown = sorted(growths_mib(outcome))
    verdict = Verdict(
        "memory flat",
        f"{len(grown)} environments lived through the second half and grew {_mib(grown)}"
        + ("" if outcome.plan.judge_memory else ", not judged in a short run"),
    )
    if not outcome.plan.judge_memory:
        return verdict
    if not grown:
        verdict.against.append("none lived long enough")
    elif median(grown) > GROWTH_MIB or grown[-1] > MOST_GROWTH_MIB:
        verdict.against.append(f"more than {GROWTH_MIB:.0f} MiB in the middle, or {MOST_GROWTH_MIB:.0f} at most")
    return verdict


def _mib(values: list[float]) -> str:
    return f"{values[0]:.1f}, {median(values):.1f}, {values[-1]:.1f} MiB (least, median, most)" if values else "nothing"
