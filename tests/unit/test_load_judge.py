"""The judge of the load run finds what it is there to find: one thing planted at a time in a run that was well before."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.load import judge as judging
from tests.load import report
from tests.load.answers import Expected, Reply, read, wrong_with
from tests.load.conduct import Happened, Outcome, all_well
from tests.load.environments import Environment, Kill
from tests.load.explain import recoveries
from tests.load.judge import judge
from tests.load.plan import (
    BUDGET_PER_MINUTE,
    BUDGETED,
    FAULTS,
    INLINE,
    KILLED,
    KINDS,
    POOLED,
    REPEATED,
    SHARED,
    Kind,
    Plan,
    casting,
)
from tests.load.trail import Record, Trail, read_trail
from tests.load.visit import Visit
from tests.load.world import caller_id

BEGAN, LENGTH = 1_800_000_000.0, 300.0
INVOKED = next(kind for kind in KINDS if kind.door == "invoke")
TENANT = Expected("account-1", "inline", ("public-1",), "http://imburse.test")


class Run:
    """A run in which all went well: each kind was served three times after each fault of DynamoDB, one visit failed under
    another fault, and at each door one was killed."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.faults = [Happened(name, BEGAN + start, BEGAN + end, 5) for start, end, name in self.plan.faults()]
        ends = [0.0, *(one.ended - BEGAN for one in self.faults if one.fault.startswith("DynamoDB"))]
        self.visits = [_served(kind, end + turn) for end in ends for kind in KINDS for turn in (1, 2, 3)]
        under_503 = self.fault("Imburse: 503").began - BEGAN + 1
        self.failed = replace(_failed(KINDS[0], under_503, "upstream_unavailable", 503), retry_after=5)
        self.killed = _failed(KINDS[0], 8.5, "api:502", 502)
        invoked = _failed(INVOKED, 8.5, "invoke:Runtime.ExitError", 200)
        self.visits += [self.failed, self.killed, invoked]
        self.kills = [Kill(one.started, function) for one, function in ((self.killed, "api"), (invoked, "vend"))]
        self.issued = Counter({token for visit in self.visits for token in visit.tokens})
        self.records = [(visit.request_id or "", _record(visit)) for visit in self.visits if visit.code not in KILLED]
        self.environments = [Environment(pid, "api", _samples(0)) for pid in range(3)]
        self.statistics = {"tokensRefused": 0, "noncesRefused": 0}
        self.findings: list[str] = []
        self.uncounted: Counter[tuple[str, int]] = Counter()
        self.dry: list[float] = []
        self.settled = True

    def broken(self) -> list[str]:
        """The rules that do not hold."""
        return [verdict.rule for verdict in judge(self.outcome(), self.trail()) if not verdict.holds]

    def outcome(self) -> Outcome:
        """As the conductor answers it."""
        outcome = Outcome(self.plan, BEGAN, BEGAN + LENGTH, self.settled, self.visits, self.faults, self.kills)
        outcome.environments, outcome.issued = self.environments, self.issued
        outcome.statistics = self.statistics
        return outcome

    def trail(self) -> Trail:
        """As it is read from the log."""
        trail = Trail.of(self.records)
        trail.findings, trail.uncounted, trail.dry = self.findings, self.uncounted, self.dry
        return trail

    def fault(self, name: str) -> Happened:
        """The one of that name."""
        return next(one for one in self.faults if one.fault == name)

    def record(self, number: int, **changes: Any) -> None:
        """Change what stands on record of a visit."""
        request_id, record = self.records[number]
        self.records[number] = (request_id, replace(record, **changes))


def _served(kind: Kind, seconds: float) -> Visit:
    name = f"{kind.door}-{kind.name}-{seconds}"
    started = BEGAN + seconds
    visit = Visit(0, kind.name, kind.door, kind.credential, started, started + 0.1, f"request-{name}", status=200)
    if kind.refused:
        visit.code, visit.status = "not_authorized", 403
        visit.error_type = "NotAuthorized" if kind.door == "invoke" else None
    elif kind.credential == SHARED:
        visit.tokens = ["the-shared-one"]
    elif kind.action != "inspect":
        visit.tokens = [f"token-{name}"]
        visit.uses = [(visit.tokens[0], "used")]
    return visit


def _failed(kind: Kind, seconds: float, code: str, status: int) -> Visit:
    return replace(_served(kind, seconds), code=code, status=status, tokens=[], uses=[])


def _record(visit: Visit) -> Record:
    kind = next(kind for kind in KINDS if (kind.name, kind.door) == (visit.kind, visit.door))
    caller = caller_id(kind.door, kind.who)
    sources = ("pool" if visit.credential == POOLED else "exchange",) * len(visit.tokens)
    return Record(visit.ended - 0.01, "e1", caller, visit.credential, visit.code, tuple(visit.tokens), {}, sources)


def test_a_run_that_went_well_breaks_no_rule() -> None:
    assert Run().broken() == []


def _same_token(run: Run) -> None:
    run.visits[1].tokens = run.visits[0].tokens
    run.record(1, tokens=tuple(run.visits[0].tokens))


def _repeated_within_one_environment(run: Run) -> None:
    _same_token(run)
    run.issued[run.visits[0].tokens[0]] = 2


def _late(run: Run) -> None:
    run.failed.ended = run.fault("Imburse: 503").ended + 10.5


def _asked_later(run: Run) -> None:
    run.failed.started = run.fault("Imburse: 503").ended + 10.5
    _late(run)


def _asked_much_later_in_a_short_run(run: Run) -> None:
    run.plan = Plan(judge_recovery=False, judge_memory=False)
    run.failed.started = run.fault("Imburse: 503").ended + 31
    run.failed.ended = run.failed.started + 0.1


def _hand_out(run: Run, tokens: int) -> Visit:
    """One visit of a budget, with so many tokens: as if there had been so many visits."""
    number = next(n for n, visit in enumerate(run.visits) if visit.credential == BUDGETED)
    visit = run.visits[number]
    visit.tokens, visit.uses = [f"spent-{n}" for n in range(tokens)], []
    run.record(number, tokens=tuple(visit.tokens))
    run.issued.update(visit.tokens)
    return visit


def _overrun(run: Run, *, uncounted_by: str, minutes_later: int = 0) -> None:
    """70 tokens too many in one minute, and as many that were not counted, by a function, in that minute or another."""
    visit = _hand_out(run, BUDGET_PER_MINUTE + 70)
    run.uncounted[uncounted_by, int(visit.started // 60) + minutes_later] = 80


def _over_budget(run: Run, *, spent: int, after: float = 50) -> None:
    """A caller that had made so many visits in one minute is refused in it, `after` so many seconds of the minute."""
    kind = next(kind for kind in KINDS if kind.credential == BUDGETED)
    minute = 14 * 60.0  # of its own, after the run
    visits = [_served(kind, minute + 0.5 * number) for number in range(spent)]
    refused = _failed(kind, minute + after, "over_budget", 429)
    refused.retry_after = 10
    run.visits += [*visits, refused]
    run.issued.update(token for visit in visits for token in visit.tokens)
    run.records += [(visit.request_id or "", _record(visit)) for visit in (*visits, refused)]


def _only_refused_over_budget(run: Run) -> None:
    for number, (_, record) in enumerate(run.records):
        if record.credential == BUDGETED:
            visit = next(visit for visit in run.visits if visit.request_id == run.records[number][0])
            visit.code, visit.status, visit.retry_after, visit.tokens, visit.uses = "over_budget", 429, 5, [], []
            visit.error_type = "OverBudget" if visit.door == "invoke" else None
            run.record(number, error="over_budget", tokens=(), sources=())


def _die_again(run: Run, plan: Plan, seconds: float = 0.0) -> None:
    run.plan = plan
    run.visits.append(_failed(KINDS[0], run.killed.started - BEGAN + seconds, "api:502", 502))


def _ask_after_the_kill(run: Run) -> None:
    run.killed.started = run.kills[0].at + 0.01


def _from_elsewhere(run: Run, fault: str) -> None:
    """No token came from the pool any more after a fault."""
    for number, (_, record) in enumerate(run.records):
        if record.credential == POOLED and record.time > run.fault(fault).ended:
            run.record(number, sources=("exchange",))


def _refuse_a_part(run: Run) -> None:
    fault = run.fault(REPEATED)
    visit = _served(next(kind for kind in KINDS if kind.name == "in line, batch"), fault.began + 1 - BEGAN)
    visit.failures = {"upstream_rejected": 2}
    run.visits.append(visit)
    run.issued.update(visit.tokens)
    run.records.append((visit.request_id or "", replace(_record(visit), failures=visit.failures)))


def _use_twice(run: Run) -> None:
    run.visits[0].uses.append((run.visits[0].tokens[0], "ACCESS_TOKEN_ALREADY_USED"))
    run.statistics["tokensRefused"] = 1


def _use_twice_uncounted(run: Run) -> None:
    """Which may be, of a token that Imburse repeated; but Imburse must have refused it."""
    _use_twice(run)
    run.issued[run.visits[0].tokens[0]] = 2
    run.statistics["tokensRefused"] = 0


def _meet(run: Run, fault: str, met: int) -> None:
    run.faults = [replace(one, met=met) if one.fault == fault else one for one in run.faults]


def _samples(mib_a_minute: float) -> list[tuple[float, int]]:
    return [(BEGAN + second, int((90 + mib_a_minute * second / 60) * 2**20)) for second in range(int(LENGTH))]


def _grow(run: Run, mib_a_minute: float, number: int) -> None:
    for one in run.environments[:number]:
        one.samples = _samples(mib_a_minute)


WENT_WRONG, POOL = "all went wrong that was to", "the pool used again after DynamoDB's faults"
ONCE, USED, RIGHT, DOCUMENTED = (
    "nothing vended twice", "each token good for its one use", "no wrong answer", "every failure documented",
)  # fmt: skip
EXPLAINED, RECOVERED = "every failure explained", "served again within 10 s of each fault's end"
RECORDED, CHAINED, BUDGETS = "each token on record before it left, once", "audit chains whole", "budgets hold"
PLANTED: list[tuple[str, Callable[[Run], object], list[str]]] = [
    ("one token, two callers", _same_token, [ONCE]),
    ("a repeated one, one environment", _repeated_within_one_environment, [ONCE]),
    ("a token nobody issued", lambda r: r.issued.pop(r.visits[0].tokens[0]), [ONCE]),
    ("shared and not", lambda r: r.visits[0].tokens.append("the-shared-one"), [ONCE, RECORDED]),
    ("used before", _use_twice, [USED]),
    ("a use that Imburse does not count", _use_twice_uncounted, [USED]),
    ("something wrong", lambda r: r.visits[0].wrong.append("another host"), [RIGHT]),
    ("a stranger served", lambda r: setattr(_stranger(r), "code", None), [RIGHT, RECORDED]),
    ("an unknown code", lambda r: setattr(_stranger(r), "code", "teapot"), [RIGHT, DOCUMENTED, EXPLAINED, RECORDED]),
    ("another status", lambda r: setattr(r.failed, "status", 500), [DOCUMENTED]),
    ("no Retry-After", lambda r: setattr(r.failed, "retry_after", None), [DOCUMENTED]),
    ("an error type that does not fit", lambda r: setattr(_stranger(r, "invoke"), "error_type", "InternalError"), [DOCUMENTED]),
    ("no fault", lambda r: r.faults.clear(), [WENT_WRONG, EXPLAINED]),
    ("a fault that nobody met", lambda r: _meet(r, "Imburse: 429", 0), [WENT_WRONG]),
    ("a fault that was not played", lambda r: r.faults.remove(r.fault("Imburse: 429")), [WENT_WRONG]),
    ("a fault that no vend may feel", lambda r: _swap(r, "Imburse: 0.5 s late"), [EXPLAINED, RECOVERED]),
    ("another's fault", lambda r: _swap(r, "Imburse: 429"), [EXPLAINED, RECOVERED]),
    ("no kill", lambda r: r.kills.clear(), [WENT_WRONG, EXPLAINED]),
    ("another function killed", lambda r: r.kills.append(replace(r.kills.pop(0), function="vend")), [WENT_WRONG, EXPLAINED]),
    ("two dead of one kill", lambda r: _die_again(r, Plan()), [EXPLAINED]),
    ("two dead of one kill in a short run", lambda r: _die_again(r, Plan(judge_recovery=False, judge_memory=False)), [EXPLAINED]),
    ("dead long after the kill", lambda r: setattr(r.killed, "ended", r.kills[0].at + 5.1), [EXPLAINED]),
    ("dead of a kill before it asked", _ask_after_the_kill, [EXPLAINED]),
    ("a budget that refuses everybody", _only_refused_over_budget, [EXPLAINED]),
    ("refused with a visit to spare", lambda r: _over_budget(r, spent=BUDGET_PER_MINUTE - 1), [EXPLAINED]),
    ("refused for what came later", lambda r: _over_budget(r, spent=BUDGET_PER_MINUTE, after=20.2), [EXPLAINED]),
    ("refused in the next minute", lambda r: _over_budget(r, spent=BUDGET_PER_MINUTE, after=70), [EXPLAINED]),
    ("a part of a batch that repeats do not explain", _refuse_a_part, [EXPLAINED]),
    ("asked much later in a short run", _asked_much_later_in_a_short_run, [EXPLAINED]),
    ("the pool never used again", lambda r: _from_elsewhere(r, "DynamoDB: stalls"), [POOL]),
    ("a use refused that nobody saw", lambda r: r.statistics.update(tokensRefused=1), [USED]),
    ("a nonce used twice", lambda r: r.statistics.update(noncesRefused=1), [USED]),
    ("more repeated than asked for", lambda r: r.issued.update({r.visits[0].tokens[0]: 6}), [USED]),
    ("a part of a batch without a fault", lambda r: _part(r), [EXPLAINED]),
    ("too late", _late, [RECOVERED]),
    ("asked too late", _asked_later, [EXPLAINED, RECOVERED]),
    ("never well", lambda r: setattr(r, "settled", False), [RECOVERED]),
    ("no record", lambda r: r.records.pop(0), [RECORDED]),
    ("two records", lambda r: r.records.append(r.records[0]), [RECORDED]),
    ("another caller on record", lambda r: r.record(0, caller="alias/other"), [RECORDED]),
    ("another credential on record", lambda r: r.record(0, credential=BUDGETED), [RECORDED]),
    ("another outcome on record", lambda r: r.record(0, error="upstream_rejected"), [RECORDED]),
    ("a token not on record", lambda r: r.record(0, tokens=()), [RECORDED]),
    ("recorded afterwards", lambda r: r.record(0, time=r.visits[0].ended + 0.1), [RECORDED]),
    ("a broken chain", lambda r: r.findings.append("missing"), [CHAINED]),
    ("a budget overrun", lambda r: _hand_out(r, BUDGET_PER_MINUTE + 1), [BUDGETS]),
    ("an overrun, another caller uncounted", lambda r: _overrun(r, uncounted_by="vend"), [BUDGETS]),
    ("an overrun, another minute uncounted", lambda r: _overrun(r, uncounted_by="api", minutes_later=1), [BUDGETS]),
    ("memory that grows everywhere", lambda r: _grow(r, 1.2, 2), ["memory flat"]),
    ("memory that grows much in one", lambda r: _grow(r, 5, 1), ["memory flat"]),
    ("nobody lived long enough", lambda r: r.environments.clear(), ["memory flat"]),
]  # fmt: skip


def _stranger(run: Run, door: str = "api") -> Visit:
    return next(visit for visit in run.visits if visit.kind == "stranger" and visit.door == door)


def _swap(run: Run, fault: str) -> None:
    """Another fault was in force when the visit failed."""
    names = {"Imburse: 503": fault, fault: "Imburse: 503"}
    run.faults = [replace(one, fault=names.get(one.fault, one.fault)) for one in run.faults]


def _part(run: Run) -> None:
    number = next(n for n, visit in enumerate(run.visits) if visit.kind == "in line, batch")
    run.visits[number].failures = {"upstream_throttled": 1}
    run.record(number, failures={"upstream_throttled": 1})


@pytest.mark.parametrize(("plant", "broken"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_what_is_planted_breaks_its_rule_and_no_other(plant: Callable[[Run], object], broken: list[str]) -> None:
    run = Run()
    plant(run)
    assert run.broken() == broken


def test_a_budget_that_was_spent_explains_a_refusal_and_uncounted_visits_an_overrun() -> None:
    run = Run()
    _over_budget(run, spent=BUDGET_PER_MINUTE)
    _overrun(run, uncounted_by="api")
    assert run.broken() == []


def test_two_kills_explain_two_dead_visits_whatever_their_order() -> None:
    run = Run()
    _die_again(run, Plan(), seconds=-0.05)
    run.kills.insert(0, Kill(run.killed.started + 0.01, "api"))
    run.killed.started += 0.005  # so that only the second kill can have cost it
    assert run.broken() == []


def _inspect_in_vain(run: Run, code: str, status: int) -> None:
    kind = next(kind for kind in KINDS if kind.action == "inspect")
    visit = _failed(kind, run.fault(REPEATED).began + 1 - BEGAN, code, status)
    run.visits.append(visit)
    run.statistics["tokensRefused"] = 1
    if code in KILLED:
        run.kills.append(Kill(visit.started, "api"))
    else:
        run.records.append((visit.request_id or "", _record(visit)))


@pytest.mark.parametrize(("code", "status"), [("upstream_rejected", 502), ("api:502", 502)])
def test_an_inspection_explains_a_use_that_imburse_refused_also_if_it_died(code: str, status: int) -> None:
    run = Run()
    _inspect_in_vain(run, code, status)
    assert run.broken() == []


def test_one_whose_environment_died_had_spent_its_budget_and_one_at_the_turn_of_a_minute_is_of_neither() -> None:
    run = Run()
    _over_budget(run, spent=BUDGET_PER_MINUTE)
    died = next(visit for visit in run.visits if visit.started == BEGAN + 14 * 60)
    run.records = [one for one in run.records if one[0] != died.request_id]
    died.code, died.status, died.tokens, died.uses = "api:502", 502, [], []
    run.kills.append(Kill(died.started, "api"))
    turn = _hand_out(run, BUDGET_PER_MINUTE + 1)
    turn.ended = turn.started + 60
    assert run.broken() == []


def test_a_pool_that_nobody_asked_need_not_answer_and_one_that_was_must() -> None:
    run = Run()
    end = run.fault("DynamoDB: errors").ended
    _from_elsewhere(run, "DynamoDB: errors")
    assert run.broken() == [POOL]
    run.records = [one for one in run.records if one[1].credential != POOLED or one[1].time < end]
    gone = [visit for visit in run.visits if visit.credential == POOLED and visit.started > end]
    run.visits = [visit for visit in run.visits if visit not in gone]
    assert run.broken() == []


def test_a_pool_that_says_it_is_empty_has_answered_but_must_have_tokens_a_minute_later() -> None:
    last, earlier = "DynamoDB: errors", "DynamoDB: hangs up"
    for fault, broken in ((last, []), (earlier, [POOL])):
        run = Run()
        _from_elsewhere(run, fault)
        run.dry = [run.fault(name).ended + 19 for name in (last, earlier)]
        assert run.broken() == broken


def test_everybody_must_be_served_three_times_in_a_row_and_a_spent_budget_is_no_service() -> None:
    served = [_served(kind, turn) for kind in KINDS for turn in (1, 2, 3)]
    assert all_well(served, since=BEGAN)
    assert not all_well(served, since=BEGAN + 1)
    assert not all_well([*served, _failed(KINDS[0], 4, "upstream_unavailable", 503)], since=BEGAN)
    refused = [replace(one, code="over_budget") if one.credential == BUDGETED else one for one in served]
    assert not all_well(refused, since=BEGAN)
    assert all_well([*served, *refused], since=BEGAN)


def test_metrics_tell_what_a_budget_did_not_count_and_when_the_pool_was_dry(tmp_path: Path) -> None:
    def line(second: float, *metrics: str) -> str:
        head = {"_aws": {"Timestamp": int(second * 1000), "CloudWatchMetrics": [{"Dimensions": [["service"]]}]}}
        values = {"service": "vend", "credential": BUDGETED, "TokensVended": [1.0], **{name: [2.0] for name in metrics}}
        return f"imburse-vending-vend {json.dumps(head | values, separators=(',', ':'))}\n"

    log = tmp_path / "functions.log"
    lines = [line(61, "BudgetUnavailable"), line(119, "BudgetUnavailable"), line(120.5, "BudgetUnavailable")]
    log.write_text("".join([*lines, line(121), line(122, "PoolMiss"), line(123, "PoolUnavailable")]))
    trail = read_trail(log)
    assert trail.uncounted == {("vend", 1): 3, ("vend", 2): 1}
    assert trail.dry == [122]


def test_the_report_tells_of_each_fault_the_kills_and_each_rule() -> None:
    run = Run()
    run.findings.append("missing")
    verdicts = judge(run.outcome(), run.trail())
    told = report.text(run.outcome(), verdicts).splitlines()
    assert [line.split("  ")[0] for line in told[1:16]] == [one.fault for one in run.faults]
    assert " ".join(told[16].split()) == "killed: 1 api, 1 vend 1 api:502, 1 invoke:Runtime.ExitError 0.1"
    assert [line[:4] for line in told if verdicts[0].rule in line or CHAINED in line] == ["ok  ", "FAIL"]


def test_one_environment_may_grow_a_little() -> None:
    run = Run()
    _grow(run, 3, 1)
    assert run.broken() == []


def test_a_token_that_imburse_repeated_may_be_had_from_two_environments() -> None:
    run = Run()
    _repeated_within_one_environment(run)
    run.record(1, environment="e2")
    assert run.broken() == []


def test_recovery_counts_to_the_end_of_the_last_failure() -> None:
    run = Run()
    run.failed.ended = run.fault("Imburse: 503").ended + 3
    found = [(one.happened.fault, dict(one.failed), one.seconds) for one in recoveries(run.outcome()) if one.failed]
    assert found == [("Imburse: 503", {"upstream_unavailable": 1}, 3)]


def test_every_code_that_a_fault_explains_is_documented() -> None:
    documented = judging.documented_errors()
    assert {code for codes in FAULTS.values() for code in codes} <= documented.keys()
    assert {"internal_error", "over_budget", "not_authorized"} <= documented.keys()


def test_every_kind_calls_however_few_callers_and_64_are_as_the_weights_say() -> None:
    assert set(casting(len(KINDS))) == set(KINDS)
    assert Counter(casting(64)) == {kind: kind.weight for kind in KINDS}


def test_every_fault_is_played_in_each_round_and_none_overlaps() -> None:
    for plan, rounds in ((Plan(), 1), (Plan(seconds=600), 2), (Plan(seconds=20), 1)):
        played = list(plan.faults())
        assert Counter(name for *_, name in played) == dict.fromkeys(FAULTS, rounds)
        ends = [end for _, end, _ in played]
        assert all(start < end for start, end, _ in played)
        assert all(end < start for end, (start, *_) in zip(ends, played[1:], strict=False))


# Answers


def _token(**changes: Any) -> dict[str, Any]:
    claims = {"sub": "public-1", "accountId": "account-1", "tenantId": "inline", "exp": 1_800_001_800} | changes
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return _answer(f"e30.{body}.signature")


def _answer(token: str) -> dict[str, Any]:
    return {
        "accessToken": token,
        "expires": 1_800_001_800,
        "expiresAt": "2027-01-15T08:30:00Z",
        "expiresIn": 1800,
        "tokenType": "Bearer",
        "credential": INLINE,
        "baseUrl": "http://imburse.test",
        "headers": {"Authorization": f"Bearer {token}", "x-account-id": "account-1", "x-tenant-id": "inline"},
    }


def _visit() -> Visit:
    return Visit(0, "in line", "api", INLINE, BEGAN - 0.5, BEGAN)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (_token(), []),
        (_token() | {"more": 1}, ["not the shape of a token"]),
        (_token() | {"credential": BUDGETED}, ["another credential"]),
        (_token() | {"baseUrl": "http://elsewhere.test"}, ["another host"]),
        (_token() | {"tokenType": "MAC"}, ["another type"]),
        (_token() | {"headers": {}}, ["wrong headers"]),
        (_token(sub="public-2"), ["another key's token"]),
        (_token(tenantId="other"), ["another tenant's token"]),
        (_token(exp=1), ["another expiry than the token's"]),
        (_token(exp=1_800_000_100) | {"expires": 1_800_000_100}, ["does not live long enough", "expiresIn does not fit", "expiresAt does not fit"]),
        (_token() | {"expiresIn": 3600}, ["expiresIn does not fit"]),
        (_token() | {"expiresAt": "2027-01-15T08:30:01Z"}, ["expiresAt does not fit"]),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_token_is_read_to_the_letter(answer: dict[str, Any], wrong: list[str]) -> None:
    assert wrong_with(answer, _visit(), TENANT, 0.5) == wrong


def test_a_batch_must_add_up_and_an_answer_must_not_be_kept() -> None:
    kind = next(kind for kind in KINDS if kind.action == "batch")
    failures = [{"count": 1, "type": "urn:imburse-vending:error:upstream_throttled"}]
    body = json.dumps({"tokens": [_token()], "requested": 3, "failures": failures}).encode()
    visit = _visit()
    headers = read(visit, kind, 3, Reply(200, {"Cache-Control": "private"}, body), TENANT, slack=0.5)
    assert visit.wrong == ["may be cached", "a batch that does not add up"]
    assert (len(visit.tokens), len(headers), visit.failures) == (1, 1, {"upstream_throttled": 1})


def test_lambdas_own_words_are_told_from_ours() -> None:
    api, invoke = KINDS[0], next(kind for kind in KINDS if kind.door == "invoke")
    ours = {"type": "urn:imburse-vending:error:over_budget", "status": 429, "requestId": "1", "retryAfter": 3}
    raised = {"errorType": "OverBudget", "errorMessage": json.dumps(ours)}
    problem = {"Content-Type": "application/problem+json", "Retry-After": "3", "x-amzn-RequestId": "1"}
    for kind, reply, read_as in (
        (api, Reply(502, {}, b'{"message": "Internal server error"}'), ("api:502", None)),
        (api, Reply(429, problem, json.dumps(ours).encode()), ("over_budget", 3)),
        (
            invoke,
            Reply(200, {}, b'{"errorType": "Runtime.ExitError"}', "Unhandled"),
            ("invoke:Runtime.ExitError", None),
        ),
        (invoke, Reply(200, {"x-amzn-RequestId": "1"}, json.dumps(raised).encode(), "Unhandled"), ("over_budget", 3)),
    ):
        visit = _visit()
        assert read(visit, kind, 1, reply, TENANT, slack=0) == []
        assert ((visit.code, visit.retry_after), visit.wrong) == (read_as, [])
