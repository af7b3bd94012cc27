"""What the books of a load run must show: audit records, chains, budgets, and where tokens came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf

from tests.load.conduct import Outcome
from tests.load.explain import kind_of
from tests.load.plan import (
    BUDGET_PER_MINUTE,
    BUDGETED,
    FUNCTION,
    KILLED,
    POOL_FILLED_SECONDS,
    POOL_SECONDS,
    POOLED,
    SHARED,
)
from tests.load.trail import Trail
from tests.load.verdict import Verdict, counts
from tests.load.visit import Visit
from tests.load.world import caller_id


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
    shared = {token for visit in outcome.visits if visit.credential == SHARED for token in visit.tokens}
    for token, times in handed.items():
        records = len(trail.by_token[token])
        # A killed environment may have written a record whose token went to nobody: of a shared one only.
        if records < times or (records > times and outcome.issued[token] < 2 and token not in shared):
            verdict.against.append(f"{token[:12]} handed out {times} times, {records} records")
    verdict.evidence = f"{looked_at} answers and their records compared, {len(handed)} tokens"
    return verdict


def chained(outcome: Outcome, trail: Trail) -> Verdict:
    """`audit verify` finds nothing."""
    records = sum(map(len, trail.by_request.values()))
    evidence = f"{records} records of {trail.chains} environments; tokens on record: {counts(trail.sources)}"
    return Verdict("audit chains whole", evidence, trail.findings)


def budgeted(outcome: Outcome, trail: Trail) -> Verdict:
    """No caller had more tokens in a minute than its budget allows, but those that this very counter did not answer for."""
    handed: Counter[tuple[str, int]] = Counter()
    for visit in outcome.visits:
        if visit.credential == BUDGETED and len(visit.minutes()) == 1:  # else it may be of either minute
            handed[FUNCTION[visit.door], visit.minutes()[0]] += len(visit.tokens)
    verdict = Verdict(
        "budgets hold",
        f"{max(handed.values(), default=0)} of {BUDGET_PER_MINUTE} in the fullest minute;"
        f" at most {max(trail.uncounted.values(), default=0)} uncounted in one",
    )
    for (function, minute), tokens in handed.items():
        if tokens > BUDGET_PER_MINUTE + (uncounted := trail.uncounted[function, minute]):
            verdict.against.append(f"{function}: {tokens} in one minute, {uncounted} of them uncounted")
    return verdict


def pooled(outcome: Outcome, trail: Trail) -> Verdict:
    """After each fault of DynamoDB the pool answers again, if it is asked, and then has tokens again."""
    visits = [visit for visit in outcome.visits if visit.credential == POOLED]
    hits = [visit for visit in visits if _from_pool(visit, trail)]
    ends = [one.ended for one in outcome.faults if one.fault.startswith("DynamoDB")]
    tokens = [min((hit.ended - end for hit in hits if hit.started > end), default=inf) for end in ends]
    dry = [min((at - end for at in trail.dry if at > end), default=inf) for end in ends]
    answers = [min(both) for both in zip(tokens, dry, strict=True)]
    verdict = Verdict(
        "the pool used again after DynamoDB's faults",
        f"answered {_seconds(answers)} after their ends, with a token {_seconds(tokens)}",
    )
    for end, answer, token in zip(ends, answers, tokens, strict=True):
        asked = [visit for visit in visits if end < visit.started and visit.ended <= end + POOL_SECONDS]
        if asked and answer > POOL_SECONDS:
            verdict.against.append(f"none of {len(asked)} visits was answered by it")
        elif token > POOL_FILLED_SECONDS and outcome.ended >= end + POOL_FILLED_SECONDS:
            verdict.against.append("no token came from it")
    return verdict


def _from_pool(visit: Visit, trail: Trail) -> bool:
    return any("pool" in record.sources for record in trail.by_request.get(visit.request_id or "", []))


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


def _seconds(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) + " s"
