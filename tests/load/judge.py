"""What a load run must show: each rule of it, with its evidence and whatever speaks against it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from local.stack import PROJECT
from tests.load.conduct import Outcome
from tests.load.explain import codes, explains, kind_of, recoveries
from tests.load.measures import growths_mib
from tests.load.plan import BUDGET_PER_MINUTE, BUDGETED, GROWTH_MIB, KILLED, MOST_GROWTH_MIB, SHARED
from tests.load.trail import Trail
from tests.load.visit import Visit
from tests.load.world import caller_id

_ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \| `(\w+)` \|", re.MULTILINE)


@dataclass
class Verdict:
    """A rule, what was counted for it, and what speaks against it."""

    rule: str
    evidence: str
    against: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing does."""
        return not self.against


def judge(outcome: Outcome, trail: Trail) -> list[Verdict]:
    """Every rule."""
    judges: list[Callable[[Outcome, Trail], Verdict]] = [
        once, used_once, right, documented, explained, recovered, recorded, chained, budgeted, memory,
    ]  # fmt: skip
    return [one(outcome, trail) for one in judges]


def documented_errors(readme: Path = PROJECT / "README.md") -> dict[str, tuple[int, str]]:
    """Status and error type by code, from the README's table "What goes wrong"."""
    return {code: (int(status), kind) for code, status, kind in _ROW.findall(readme.read_text(encoding="utf-8"))}


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
    """Imburse, which takes each token once, took each that was handed out, but for those that it had repeated."""
    uses = Counter(what for v in outcome.visits for _, what in v.uses)
    refused = int(outcome.statistics.get("tokensRefused", 0))
    verdict = Verdict(
        "each token good for its one use",
        f"{uses['used']} used, {uses['ACCESS_TOKEN_ALREADY_USED']} refused as used before, by Imburse's count {refused}",
    )
    for visit in outcome.visits:
        for token, what in visit.uses:
            if what != "used" and not (what == "ACCESS_TOKEN_ALREADY_USED" and outcome.issued[token] > 1):
                verdict.against.append(f"{token[:12]} {what}")
    if nonces := outcome.statistics.get("noncesRefused"):
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
        "every failure documented", f"{sum(whole.values())} visits: {_counts(whole)}; in batches {_counts(parts)}"
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
    for visit in outcome.visits:
        for code in codes(visit):
            if not explains(outcome, visit, code):
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
        verdict.against += [f"{one.happened.fault}: {one.seconds:.1f} s, {_counts(one.failed)}" for one in late]
    return verdict


def recorded(outcome: Outcome, trail: Trail) -> Verdict:
    """Each answer has one audit record, which says the same, and says it before."""
    verdict = Verdict("each token on record before it left, once", "")
    handed: Counter[str] = Counter()
    looked_at = 0
    for visit in outcome.visits:
        handed.update(visit.tokens)
        if visit.request_id is None or visit.code in KILLED or (visit.code or "").startswith(("client:", "api:")):
            continue
        looked_at += 1
        verdict.against += [f"{visit.door} {visit.kind}: {what}" for what in _against_record(visit, trail)]
    for token, times in handed.items():
        records = len(trail.by_token[token])
        # A killed environment may have written a record whose token went to nobody: of a shared one only.
        if records < times or (records > times and outcome.issued[token] < 2 and not _shared(token, outcome)):
            verdict.against.append(f"{token[:12]} handed out {times} times, {records} records")
    verdict.evidence = f"{looked_at} answers and their records compared, {len(handed)} tokens"
    return verdict


def chained(outcome: Outcome, trail: Trail) -> Verdict:
    """`audit verify` finds nothing."""
    records = sum(map(len, trail.by_request.values()))
    evidence = f"{records} records of {trail.chains} environments; tokens on record: {_counts(trail.sources)}"
    return Verdict("audit chains whole", evidence, trail.findings)


def budgeted(outcome: Outcome, trail: Trail) -> Verdict:
    """No minute saw more tokens of a budget than it allows, but where its counter did not answer."""
    windows: Counter[tuple[str, int]] = Counter()
    for visit in outcome.visits:
        if visit.credential == BUDGETED:
            for record in trail.by_request.get(visit.request_id or "", []):
                windows[record.caller or "", int(record.time // 60)] += len(record.tokens)
    fullest = max(windows.values(), default=0)
    verdict = Verdict(
        "budgets hold",
        f"{fullest} of {BUDGET_PER_MINUTE} in the fullest minute; {trail.budgets_unread} visits passed uncounted",
    )
    if fullest > BUDGET_PER_MINUTE + trail.budgets_unread:
        verdict.against.append("more than that explains")
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


def _against_record(visit: Visit, trail: Trail) -> Iterator[str]:
    records = trail.by_request.get(visit.request_id or "", [])
    if len(records) != 1:
        yield f"{len(records)} records of one request"
        return
    record, kind = records[0], kind_of(visit)
    said: dict[str, tuple[object, object]] = {
        "caller": (record.caller, caller_id(kind.door, kind.who)),
        "credential": (record.credential, visit.credential),
        "error": (record.error, visit.code),
        "failures": (record.failures, visit.failures),
    }
    if kind.action != "inspect":
        said["tokens"] = Counter(record.tokens), Counter(visit.tokens)
    for what, (on_record, told) in said.items():
        if on_record != told:
            yield f"{what} on record is not what was answered"
    if record.time > visit.ended:
        yield "recorded after it was answered"


def _shared(token: str, outcome: Outcome) -> bool:
    return any(token in visit.tokens for visit in outcome.visits if visit.credential == SHARED)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{times} {what}" for what, times in counter.most_common()) or "none"


def _mib(values: list[float]) -> str:
    return f"{values[0]:.1f}, {median(values):.1f}, {values[-1]:.1f} MiB (least, median, most)" if values else "nothing"
