"""The judge of the load run finds what it is there to find: one thing planted at a time in a run that was well before."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.load import judge as judging
from tests.load.answers import Expected, Reply, read, wrong_with
from tests.load.conduct import Happened, Outcome
from tests.load.environments import Environment, Kill
from tests.load.explain import recoveries
from tests.load.judge import judge
from tests.load.plan import BUDGETED, FAULTS, INLINE, KINDS, SHARED, Kind, Plan, casting
from tests.load.trail import Record, Trail
from tests.load.visit import Visit
from tests.load.world import caller_id

BEGAN, LENGTH = 1_800_000_000.0, 300.0
TENANT = Expected("account-1", "inline", ("public-1",), "http://imburse.test")


class Run:
    """A run in which all went well: each kind was served three times, one of them failed under a fault, one was killed."""

    def __init__(self) -> None:
        self.visits = [_served(kind, turn) for kind in KINDS for turn in range(3)]
        failed = replace(
            _served(KINDS[0], 7), code="upstream_unavailable", status=503, retry_after=5, tokens=[], uses=[]
        )
        killed = replace(_served(KINDS[0], 8), code="api:502", status=502, tokens=[], uses=[])
        self.failed, self.killed = failed, killed
        self.faults = [Happened("Imburse: 503", failed.started - 1, failed.started + 1, 5)]
        self.kills = [Kill(killed.started, "api")]
        self.visits += [failed, killed]
        self.issued = Counter({token for visit in self.visits for token in visit.tokens})
        self.records = [(visit.request_id or "", _record(visit)) for visit in self.visits if visit is not killed]
        self.environments = [Environment(pid, "api", _samples(0)) for pid in range(3)]
        self.findings: list[str] = []
        self.settled = True

    def broken(self) -> list[str]:
        """The rules that do not hold."""
        outcome = Outcome(Plan(), BEGAN, BEGAN + LENGTH, self.settled, self.visits, self.faults, self.kills)
        outcome.environments, outcome.issued = self.environments, self.issued
        trail = Trail.of(self.records)
        trail.findings = self.findings
        return [verdict.rule for verdict in judge(outcome, trail) if not verdict.holds]

    def record(self, number: int, **changes: Any) -> None:
        """Change what stands on record of a visit."""
        request_id, record = self.records[number]
        self.records[number] = (request_id, replace(record, **changes))


def _served(kind: Kind, turn: int) -> Visit:
    name = f"{kind.door}-{kind.name}-{turn}"
    started = BEGAN + 100 + turn
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


def _record(visit: Visit) -> Record:
    kind = next(kind for kind in KINDS if (kind.name, kind.door) == (visit.kind, visit.door))
    caller = caller_id(kind.door, kind.who)
    return Record(visit.ended - 0.01, "e1", caller, visit.credential, visit.code, tuple(visit.tokens), {})


def test_a_run_that_went_well_breaks_no_rule() -> None:
    assert Run().broken() == []


def _same_token(run: Run) -> None:
    run.visits[1].tokens = run.visits[0].tokens
    run.record(1, tokens=tuple(run.visits[0].tokens))


def _repeated_within_one_environment(run: Run) -> None:
    _same_token(run)
    run.issued[run.visits[0].tokens[0]] = 2


def _late(run: Run) -> None:
    run.failed.ended = run.faults[0].ended + 10.5


def _asked_later(run: Run) -> None:
    run.failed.started = run.faults[0].ended + 10.5
    _late(run)


def _spent(run: Run) -> None:
    number = next(n for n, visit in enumerate(run.visits) if visit.credential == BUDGETED)
    tokens = [f"spent-{n}" for n in range(61)]
    run.visits[number].tokens, run.visits[number].uses = tokens, []
    run.record(number, tokens=tuple(tokens))
    run.issued.update(tokens)


def _samples(mib_a_minute: float) -> list[tuple[float, int]]:
    return [(BEGAN + second, int((90 + mib_a_minute * second / 60) * 2**20)) for second in range(int(LENGTH))]


def _grow(run: Run, mib_a_minute: float, number: int) -> None:
    for one in run.environments[:number]:
        one.samples = _samples(mib_a_minute)


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
    ("used before", lambda r: r.visits[0].uses.append((r.visits[0].tokens[0], "ACCESS_TOKEN_ALREADY_USED")), [USED]),
    ("something wrong", lambda r: r.visits[0].wrong.append("another host"), [RIGHT]),
    ("a stranger served", lambda r: setattr(_stranger(r), "code", None), [RIGHT, RECORDED]),
    ("an unknown code", lambda r: setattr(_stranger(r), "code", "teapot"), [RIGHT, DOCUMENTED, EXPLAINED, RECORDED]),
    ("another status", lambda r: setattr(r.failed, "status", 500), [DOCUMENTED]),
    ("no Retry-After", lambda r: setattr(r.failed, "retry_after", None), [DOCUMENTED]),
    ("an error type that does not fit", lambda r: setattr(_stranger(r, "invoke"), "error_type", "InternalError"), [DOCUMENTED]),
    ("no fault", lambda r: r.faults.clear(), [EXPLAINED]),
    ("a fault that no vend may feel", lambda r: _rename(r, "DynamoDB: stalls"), [EXPLAINED]),
    ("another's fault", lambda r: _rename(r, "Imburse: 429"), [EXPLAINED]),
    ("no kill", lambda r: r.kills.clear(), [EXPLAINED]),
    ("another function killed", lambda r: r.kills.append(replace(r.kills.pop(), function="vend")), [EXPLAINED]),
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
    ("a budget overrun", _spent, [BUDGETS]),
    ("memory that grows everywhere", lambda r: _grow(r, 1.2, 2), ["memory flat"]),
    ("memory that grows much in one", lambda r: _grow(r, 5, 1), ["memory flat"]),
    ("nobody lived long enough", lambda r: r.environments.clear(), ["memory flat"]),
]  # fmt: skip


def _stranger(run: Run, door: str = "api") -> Visit:
    return next(visit for visit in run.visits if visit.kind == "stranger" and visit.door == door)


def _rename(run: Run, fault: str) -> None:
    run.faults = [replace(run.faults[0], fault=fault)]


def _part(run: Run) -> None:
    number = next(n for n, visit in enumerate(run.visits) if visit.kind == "in line, batch")
    run.visits[number].failures = {"upstream_throttled": 1}
    run.record(number, failures={"upstream_throttled": 1})


@pytest.mark.parametrize(("plant", "broken"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_what_is_planted_breaks_its_rule_and_no_other(plant: Callable[[Run], object], broken: list[str]) -> None:
    run = Run()
    plant(run)
    assert run.broken() == broken


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
    run.failed.ended = run.faults[0].ended + 3
    found = recoveries(Outcome(Plan(), BEGAN, visits=run.visits, faults=run.faults))
    assert [(dict(one.failed), one.seconds) for one in found] == [({"upstream_unavailable": 1}, 3)]


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
