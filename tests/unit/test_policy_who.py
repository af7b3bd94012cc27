"""`policy who-can` and `policy explain` say what Cedar says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imburse_auth import CredentialId
from imburse_vending.policy_ask import STRANGE_ACCOUNT, Question, Values, caller, ranges, through
from imburse_vending.policy_explain import explain, rule_for
from imburse_vending.policy_who import Access, who_can
from tests import policies
from tests.machine import ACCOUNT, POLICY_DIR
from tests.policies import QUESTIONS, SCHEMA
from vending.access.policy import System
from vending.access.rules import RuleBook

DEV = (POLICY_DIR / "dev.cedar").read_text()
TENANT_A = CredentialId("sandbox", "tenant-a")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"


def book(text: str = DEV) -> RuleBook:
    return RuleBook(text, SCHEMA)


def said(question: Question, text: str = DEV) -> dict[str, tuple[str, ...]]:
    """What would be allowed instead, and by which rules."""
    return {near.change: near.rules for near in explain(book(text), text, SCHEMA, question, ACCOUNT).near}


# Who can


def test_who_can_names_callers_counts_budgets_and_rules() -> None:
    found = {(one.who, one.via): one for one in who_can(book(), "vend", TENANT_A, ACCOUNT)}
    assert {who for who, _ in found} == {
        "alias/access-report",
        "alias/settlement-job",
        f"{ROLE}orders",
        f"{ROLE}refunds",
    }
    assert found["alias/settlement-job", "invoke"].counts == ((1, 10),)
    assert found[f"{ROLE}orders", "api"].conditions == ""
    refunds = found[f"{ROLE}refunds", "proof"]
    assert (refunds.rules, [one.limit for one in refunds.budgets]) == (("refunds-tenant-a",), [60])


@pytest.mark.parametrize(
    ("condition", "counts"),
    [
        ("when { context.count < 10 }", ((1, 9),)),
        ("when { context.count > 3 }", ((4, 500),)),
        ("unless { context.count == 2 }", ((1, 1), (3, 500))),
        ("when { context.count * 2 > 7 && context.count - 1 < 40 }", ((4, 40),)),
    ],
)
def test_counts_are_told_to_the_last_that_is_allowed(condition: str, counts: tuple[tuple[int, int], ...]) -> None:
    rules = book(f'@id("a") permit (principal == Caller::"alias/x", action, resource) {condition};')
    assert [one.counts for one in who_can(rules, "vend", TENANT_A, ACCOUNT)] == [counts]


def test_who_can_operate_the_whole_machine() -> None:
    assert {one.who for one in who_can(book(), "operate", System(), ACCOUNT)} == {f"{ROLE}operators"}


def test_who_can_tells_endpoints_and_networks_as_the_rules_name_them() -> None:
    (payouts,) = who_can(book(), "vend", CredentialId("production", "tenant-a"), ACCOUNT)
    assert (payouts.via, payouts.conditions) == ("api", "endpoint vpce-0123456789abcdef0")
    office = 'context has sourceIp && context.sourceIp.isInRange(ip("10.0.0.0/8"))'
    rules = book(
        f'@id("a") permit (principal == Caller::"{ROLE}a", action, resource) when {{ {office} || context has vpce }};'
    )
    assert [one.conditions for one in who_can(rules, "inspect", TENANT_A, ACCOUNT)] == [
        "endpoint any other",
        "from 10.0.0.0/8; endpoint none",
    ]


def test_who_can_tells_of_strangers_whom_no_rule_names() -> None:
    rules = book(
        f'@id("a") permit (principal in Account::"{ACCOUNT}", action == Action::"vend", resource == Credential::"sandbox/a");'
        '@id("b") permit (principal, action == Action::"vend", resource == Credential::"sandbox/b");'
    )
    of_a, of_b = ({one.who for one in who_can(rules, "vend", CredentialId("sandbox", name), ACCOUNT)} for name in "ab")
    assert of_a == {f"any caller of account {ACCOUNT}", "any alias"}
    assert of_b == {"anybody", f"any caller of account {ACCOUNT}", "any alias"}
    # An alias belongs to the machine's account.
    elsewhere = {one.who for one in who_can(rules, "vend", CredentialId("sandbox", "a"), policies.OTHER_ACCOUNT)}
    assert elsewhere == {f"any caller of account {ACCOUNT}"}


def _who(question: Question, values: Values) -> str:
    """Under which name who-can lists them."""
    asking = question.caller
    if asking.id in values.callers:
        return asking.id
    if asking.id.startswith("alias/"):
        return "any alias"
    return f"any caller of account {asking.account}" if asking.account in values.accounts else "anybody"


def _includes(access: Access, question: Question) -> bool:
    """Whether a line of who-can says that this is allowed."""
    asking = question.caller
    place = {"10.1.2.3": "10.0.0.0/8", None: "unknown"}.get(asking.source_ip, "elsewhere")
    endpoint = {policies.ENDPOINT: policies.ENDPOINT, None: "none"}.get(asking.vpce, "any other")
    return (
        asking.via == access.via
        and (not access.counts or any(first <= question.count <= last for first, last in access.counts))
        and (not access.addresses or place in access.addresses)
        and (not access.endpoints or endpoint in access.endpoints)
    )


@settings(max_examples=20)
@given(rules=policies.texts(), about=st.sampled_from(sorted({(one.action, str(one.resource)) for one in QUESTIONS})))
def test_who_can_says_yes_exactly_where_the_policy_does(rules: tuple[str, ...], about: tuple[str, str]) -> None:
    # Every network and endpoint that the questions have stands in the rules, so that each has a word of its own.
    words = (
        '@id("words") forbid (principal == Caller::"alias/words", action, resource) when {'
        f' context has vpce && context.vpce == "{policies.ENDPOINT}" && context has sourceIp'
        ' && context.sourceIp.isInRange(ip("10.0.0.0/8")) };'
    )
    # With arithmetic every count is asked for, which takes seconds; the test above has it.
    rulebook = policies.book((*(rule for rule in rules if "count +" not in rule), words))
    values = Values.of(rulebook.rules)
    questions = [one for one in QUESTIONS if (one.action, str(one.resource)) == about]
    found = list(who_can(rulebook, questions[0].action, questions[0].resource, ACCOUNT))
    for question in questions:
        lines = [one for one in found if one.who == _who(question, values) and _includes(one, question)]
        decision = question.ask(rulebook.policy)
        assert [(one.rules, one.budgets) for one in lines] == [
            (decision.policy_ids, decision.budgets)
        ] * decision.allowed


# Explain


def test_a_count_that_is_too_large_is_told_with_the_counts_that_are_not() -> None:
    near = said(Question(caller("alias/settlement-job", ACCOUNT), "vend", TENANT_A, 11))
    assert near["count 1 to 10"] == ("settlement-job-small-batches",)


def test_a_door_that_is_missing_is_told_alone() -> None:
    near = said(Question(caller(f"{ROLE}payouts", ACCOUNT), "vend", CredentialId("production", "tenant-a")))
    assert near == {"vpce vpce-0123456789abcdef0": ("payouts-production",)}


def test_who_else_may_and_what_else_this_one_may_is_told() -> None:
    near = said(Question(caller(f"{ROLE}orders", ACCOUNT), "inspect", TENANT_A))
    assert near["action vend"] == ("orders-tenant-a",)
    assert near[f"caller {ROLE}operators"] == ("operators-inspect",)


def test_two_parts_are_changed_only_where_one_does_not_help() -> None:
    near = said(Question(caller("alias/settlement-job", ACCOUNT), "vend", CredentialId("sandbox", "tenant-b"), 11))
    assert near == {f"caller {ROLE}orders": ("orders-tenant-b",)}
    near = said(Question(caller(f"{ROLE}payouts", ACCOUNT), "inspect", CredentialId("production", "tenant-a")))
    assert near == {"vpce vpce-0123456789abcdef0 and action vend": ("payouts-production",)}


def test_a_denial_comes_with_the_rule_that_would_allow_it() -> None:
    question = Question(through(caller(f"{ROLE}new", ACCOUNT), "proof"), "vend", CredentialId("sandbox", "new"), 7)
    explanation = explain(book(), DEV, SCHEMA, question, ACCOUNT)
    assert explanation.remedy == rule_for(question)
    assert not explanation.remedy_stopped
    assert question.ask(book(f"{DEV}{explanation.remedy}").policy).allowed


def test_a_rule_that_would_not_help_because_of_a_forbid_is_told_so() -> None:
    question = Question(caller(f"{ROLE}new", ACCOUNT), "vend", CredentialId("production", "new"))
    explanation = explain(book(), DEV, SCHEMA, question, ACCOUNT)
    assert [rule.id for rule in explanation.deciding] == ["production-through-the-endpoint-only"]
    assert explanation.remedy_stopped == ("production-through-the-endpoint-only",)
    assert [near.change for near in explanation.remedy_near] == ["vpce vpce-0123456789abcdef0"]


@settings(max_examples=8)
@given(rules=policies.texts(), questions=st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=2))
def test_whatever_is_said_to_be_near_and_every_remedy_holds(rules: tuple[str, ...], questions: list[Question]) -> None:
    rules = tuple(rule for rule in rules if "count +" not in rule)
    text = "\n".join(rules)
    rulebook = policies.book(rules)
    for question in questions:
        explanation = explain(rulebook, text, SCHEMA, question, ACCOUNT)
        assert explanation.decision == question.ask(rulebook.policy)
        assert not (explanation.decision.allowed and (explanation.near or explanation.remedy))
        assert all(near.rules and near.change for near in explanation.near)
        if explanation.remedy:
            mended = policies.policy((*rules, explanation.remedy))
            assert question.ask(mended).allowed is not bool(explanation.remedy_stopped)


def test_ranges_end_where_a_refusal_lies_between() -> None:
    assert ranges({1, 4, 5, 500}, (1, 3, 4, 5, 6, 500)) == [(1, 1), (4, 5), (500, 500)]
    assert ranges({1, 10}, (1, 10, 11)) == [(1, 10)]
    assert ranges(set(), (1, 2)) == []


def test_a_stranger_is_of_no_account_that_exists() -> None:
    assert STRANGE_ACCOUNT not in Values.of(book().rules).accounts
