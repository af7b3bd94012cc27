"""`policy replay` finds every planted change, and takes nothing for one that was none."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imburse_vending.policy_ask import Question, written
from imburse_vending.policy_replay import (
    NO_CALLER,
    NO_DECISION,
    NO_REQUEST,
    UNCLEAR,
    UNREADABLE,
    Difference,
    Replay,
    question_of,
    replay,
)
from tests import policies
from tests.machine import ACCOUNT, POLICY_DIR, Context, Machine, api_event
from tests.policies import QUESTIONS, SCHEMA
from vending.access.policy import Policy, System
from vending.record.audit import AuditRecord, AuditTrail

ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
DEV = (POLICY_DIR / "dev.cedar").read_text()
FORBID_ALL = '@id("all") forbid (principal, action, resource);'
PERMIT_ALL = '@id("all") permit (principal, action, resource);'
SINGLE = {"credential": "sandbox/tenant-a"}


def run(records: list[dict[str, Any]], new: str, before: str | None = None) -> Replay:
    return replay(records, Policy(new, SCHEMA), ACCOUNT, before=Policy(before, SCHEMA) if before is not None else None)


def changes(result: Replay) -> list[tuple[str, str, int]]:
    return [(one.change, one.caller, one.records) for one in result.differences]


# Planted changes


def recorded(question: Question, old: Policy, outcome: str, number: int) -> dict[str, Any]:
    """The record that service.py leaves of this question: `outcome` is what came of it where the policy allowed it."""
    asking, decision = question.caller, question.ask(old)
    record = AuditRecord(f"request-{number}", f"request-{number}", "vend", "api" if asking.via == "api" else "invoke")
    record.caller, record.source_ip, record.vpce = asking.id, asking.source_ip, asking.vpce
    record.via = asking.via if asking.via != record.door else None
    record.action, record.policies = question.action, decision.policy_ids
    system = isinstance(question.resource, System)
    record.credential = None if system else str(question.resource)
    if question.action == "operate":
        scope = {"scope": "everything"} if system else {"scope": "credential", "target": str(question.resource)}
        record.brake = {"operate": "freeze", "why": "INC-1", **scope}
    else:
        record.count = question.count
    if not decision.allowed or outcome == "not_authorized":
        record.error, record.outcome = "not_authorized", "refused"
    else:
        record.decision, record.error = "allow", outcome or None
    lines: list[str] = []
    AuditTrail(lines.append).write(record, now=1_790_000_000.0 + number)
    return dict(json.loads(lines[0]))


@settings(max_examples=14)
@given(rules=policies.texts(most=6), planted=policies.texts(most=3), seed=st.integers(0, 10_000))
def test_replay_finds_exactly_the_differences_of_planted_changes(
    rules: tuple[str, ...], planted: tuple[str, ...], seed: int
) -> None:
    chosen = random.Random(seed)
    changed = list(rules)
    for number, rule in enumerate(planted):  # taken out, put in another's place under its name, or added
        place = chosen.randrange(len(rules))
        changed[place : place + 1] = chosen.choice([[], [rule.replace(f"r{number}", f"r{place}", 1)], [rule]])
    old, new = policies.policy(rules), Policy("\n".join(_with_ids_of_their_own(changed)), SCHEMA)
    questions = chosen.sample(QUESTIONS, 120)
    outcomes = [chosen.choice(["", "", "not_authorized", "over_budget", "upstream_unavailable"]) for _ in questions]
    records = [
        recorded(question, old, outcome, number)
        for number, (question, outcome) in enumerate(zip(questions, outcomes, strict=True))
    ]
    expected: dict[tuple[str, ...], list[int]] = {}
    for number, question in enumerate(questions):
        before, now = question.ask(old).allowed, question.ask(new).allowed
        if before != now:
            change = "gains" if now else "loses"
            key = (change, question.caller.id, question.action, written(question.resource))
            expected.setdefault(key, []).append(number)
    result = replay(records, new, ACCOUNT, before=old)
    found: dict[tuple[str, ...], Difference] = {
        (one.change, one.caller, one.action, one.resource): one for one in result.differences
    }
    assert {key: one.records for key, one in found.items()} == {key: len(numbers) for key, numbers in expected.items()}
    assert (result.replayed, result.skipped) == (len(records), {})
    for about, numbers in expected.items():
        assert found[about].last == records[numbers[-1]]["time"]
        assert found[about].counts == {questions[number].count for number in numbers}
        assert found[about].now == {name for number in numbers for name in questions[number].ask(new).policy_ids}


def _with_ids_of_their_own(rules: list[str]) -> list[str]:
    seen: set[str] = set()
    kept = []
    for number, rule in enumerate(rules):
        name = rule.split('"')[1]
        kept.append(rule.replace(f'"{name}"', f'"new{number}"', 1) if name in seen else rule)
        seen.add(name)
    return kept


def test_what_was_asked_is_read_back_as_it_was_decided() -> None:
    for number, question in enumerate(QUESTIONS[::97]):
        assert question_of(recorded(question, Policy("", SCHEMA), "", number), ACCOUNT) == question


# Refusals that are none of the policy's


def test_who_was_frozen_had_access_and_does_not_gain_it() -> None:
    machine = Machine()
    machine.api(api_event())
    order = {"operate": "freeze", "scope": "everything", "why": "INC-1"}
    machine.api(api_event(role="operators", body=json.dumps(order)) | {"resource": "/v1/brake", "pathParameters": None})
    assert machine.api_refusal(api_event()).code == "not_authorized"
    assert machine.audit[-1]["decision"] == "deny"
    result = run(machine.audit, DEV)
    assert (changes(result), result.replayed, result.skipped) == ([], 3, {})
    assert changes(run(machine.audit, FORBID_ALL)) == [("loses", f"{ROLE}operators", 1), ("loses", f"{ROLE}orders", 2)]


def test_who_was_frozen_all_the_time_is_told_from_a_forbid_by_the_policy_of_that_time_alone() -> None:
    machine = Machine()
    machine.table.put({"pk": "brake", "sk": "all"})
    assert machine.api_refusal(api_event()).code == "not_authorized"
    result = run(machine.audit, DEV)
    assert (changes(result), result.replayed, result.skipped) == ([], 0, {UNCLEAR: 1})
    assert changes(run(machine.audit, FORBID_ALL, before=DEV)) == [("loses", f"{ROLE}orders", 1)]
    assert changes(run(machine.audit, DEV, before=DEV)) == []


def test_who_was_forbidden_gains_access_when_the_forbid_goes() -> None:
    machine = Machine()
    assert machine.api_refusal(api_event(role="payouts", environment="production")).code == "not_authorized"
    assert run(machine.audit, PERMIT_ALL).skipped == {UNCLEAR: 1}
    result = run(machine.audit, PERMIT_ALL, before=DEV)
    assert changes(result) == [("gains", f"{ROLE}payouts", 1)]
    (difference,) = result.differences
    assert (difference.then, difference.now) == ({"production-through-the-endpoint-only"}, {"all"})


def test_a_policy_of_another_time_decides_nothing() -> None:
    machine = Machine()
    assert machine.api_refusal(api_event(role="payouts", environment="production")).code == "not_authorized"
    assert run(machine.audit, PERMIT_ALL, before=PERMIT_ALL).skipped == {UNCLEAR: 1}


def test_who_was_over_budget_or_failed_by_imburse_had_access() -> None:
    machine = Machine(policy=DEV.replace("60/minute", "1/minute"))
    machine.api(api_event(role="refunds"))
    assert machine.api_refusal(api_event(role="refunds")).code == "over_budget"
    assert (
        machine.invoke_refusal({"credential": "sandbox/gone"}, Context(alias="access-report")).code
        == "credential_not_found"
    )
    assert changes(run(machine.audit, DEV)) == []
    assert changes(run(machine.audit, FORBID_ALL)) == [
        ("loses", "alias/access-report", 1),
        ("loses", f"{ROLE}refunds", 2),
    ]


def test_a_stranger_whom_no_rule_allowed_gains_by_a_new_rule() -> None:
    machine = Machine()
    for _ in range(2):
        machine.invoke_refusal(SINGLE, Context(alias="new-job"))
    (difference,) = run(machine.audit, f"{DEV}{PERMIT_ALL}").differences
    assert (difference.change, difference.caller, difference.records) == ("gains", "alias/new-job", 2)
    assert (difference.action, difference.resource, difference.via) == (
        "vend",
        'Credential::"sandbox/tenant-a"',
        {"invoke"},
    )


def test_a_count_that_is_not_allowed_any_more_is_told() -> None:
    machine = Machine()
    for count in (2, 7, 9):
        machine.invoke(SINGLE | {"count": count})
    (difference,) = run(machine.audit, DEV.replace("context.count <= 10", "context.count <= 5")).differences
    assert (difference.change, difference.counts) == ("loses", {7, 9})


def test_what_says_nothing_about_the_policy_is_counted_and_never_a_change() -> None:
    machine = Machine()
    machine.invoke_refusal({"credential": "x"})
    machine.invoke_refusal(SINGLE, Context(alias=None))
    good = {"caller": "alias/settlement-job", "action": "vend", "credential": "sandbox/tenant-a", "door": "invoke"}
    records: list[dict[str, Any]] = [
        *machine.audit,
        {"action": "rotate", "credential": "sandbox/tenant-a", "decision": "allow", "door": "schedule"},
        {**good, "caller": None, "decision": "deny", "error": "not_authorized", "proof": "aa"},
        {**good, "decision": "deny", "error": "internal_error"},
        {**good, "door": "window"},
        {**good, "caller": "somebody"},
        {**good, "count": "7"},
        {**good, "sourceIp": "here"},
        {**good, "vpce": 7},
        {**good, "credential": "x"},
    ]
    result = run(records, PERMIT_ALL)
    assert changes(result) == []
    assert result.skipped == {NO_REQUEST: 3, NO_CALLER: 1, NO_DECISION: 1, UNREADABLE: 6}


@pytest.mark.parametrize("error", ["proof_unavailable", "internal_error"])
def test_what_failed_after_the_rules_had_allowed_it_was_allowed(error: str) -> None:
    record = {
        "caller": f"{ROLE}orders",
        "action": "vend",
        "credential": "sandbox/tenant-a",
        "door": "invoke",
        "via": "proof",
        "decision": "deny",
        "policies": ["orders-tenant-a"],
        "error": error,
    }
    assert changes(run([record], PERMIT_ALL)) == []
    assert changes(run([record], "")) == [("loses", f"{ROLE}orders", 1)]


def test_a_caller_who_proved_its_role_is_asked_as_such() -> None:
    machine = Machine()
    machine.api(api_event())
    proven = {**machine.audit[0], "door": "invoke", "via": "proof"}
    del proven["sourceIp"]
    only_api = DEV + '@id("api") forbid (principal, action, resource) when { context.via == "proof" };'
    assert changes(run([machine.audit[0], proven], only_api)) == [("loses", f"{ROLE}orders", 1)]
