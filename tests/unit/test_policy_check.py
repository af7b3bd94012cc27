"""What `policy check` finds, and that it finds nothing dead which lives."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imburse_vending.policy_ask import Values
from imburse_vending.policy_check import Finding, findings
from imburse_vending.policy_dead import never_applies, redundant
from tests import policies
from tests.machine import ACCOUNT, POLICY_DIR
from tests.policies import ELSEWHERE, QUESTIONS, SCHEMA

ROLE = f'principal == Caller::"arn:aws:iam::{ACCOUNT}:role/orders"'
HOSTS = ["sandbox", "production"]
BUT_NOBODY = 'unless { principal == Caller::"alias/live" }'


def found(text: str) -> list[Finding]:
    return findings(text, SCHEMA, HOSTS)


def only(text: str) -> Finding:
    (finding,) = found(text)
    return finding


@pytest.mark.parametrize("stage", ["dev", "sandbox", "production"])
def test_nothing_is_found_in_the_stages_files(stage: str) -> None:
    assert found((POLICY_DIR / f"{stage}.cedar").read_text()) == []


@pytest.mark.parametrize(
    ("text", "line", "problem", "hint"),
    [
        ("\npermit (principal\n  action, resource);", 3, "unexpected token `action`", None),
        ("// a;\npermit (\n  principal, action, resource)\n", 3, "unexpected end of input", "`;`"),
        ("permit (principal, action, resource);\npemit (principal, action, resource);", 2, "pemit", "permit or forbid"),
        ("permit (principal, action, resource)\nwhen {\n  context.count <= };", 3, "unexpected token `}`", None),
        ('permit (principal, action, resource)\nwhen { "abc };', 2, "invalid token", "text ends on its line"),
        ("permit (principal, action, resource)\nif { true };", 2, "condition: if", "when"),
        ("permit (principal,\n  action);", 2, "resource", "in this order"),
    ],
)
def test_a_syntax_error_is_told_with_its_line(text: str, line: int, problem: str, hint: str | None) -> None:
    finding = only(text)
    assert (finding.level, finding.line) == ("error", line)
    assert problem in finding.problem
    assert (hint or "") in (finding.hint or "")


def test_each_broken_rule_is_told() -> None:
    assert [finding.line for finding in found("permit (\n);\n\nforbid (principal);\n")] == [2, 4]


@pytest.mark.parametrize(
    ("text", "line", "problem", "hint"),
    [
        ("when {\n context.vpce == ip };".replace("ip", '"v"'), 3, "vpce", "context has vpce"),
        ("when {\n true &&\n context.cuont < 3 };", 4, "cuont", "count, via, sourceIp"),
    ],
)
def test_what_does_not_fit_the_schema_is_told_once_with_its_line(text: str, line: int, problem: str, hint: str) -> None:
    finding = only(f'@id("a") permit (principal, action, resource)\n{text}')
    assert (finding.level, finding.line, finding.rule) == ("error", line, "a")
    assert problem in finding.problem
    assert hint in (finding.hint or "")


def test_an_unknown_type_or_action_comes_with_those_there_are() -> None:
    assert "Caller" in str(only('@id("a") permit (principal == User::"x", action, resource);').hint)
    finding = only('@id("a") permit (principal,\n action == Action::"give", resource);')
    assert (finding.line, finding.hint) == (2, "there are vend, inspect and operate")


def test_a_budget_that_is_wrong_is_told_with_its_line() -> None:
    finding = only(f'@id("a")\n@budget("lots")\npermit ({ROLE}, action == Action::"vend", resource);')
    assert (finding.level, finding.line, finding.rule) == ("error", 2, "a")
    assert "600/minute" in finding.problem


@pytest.mark.parametrize(
    "rule",
    [
        f'permit (principal == Caller::"arn:aws:sts::{ACCOUNT}:assumed-role/orders/s", action == Action::"vend", resource);',
        f'forbid (principal == Caller::"arn:aws:iam::{ACCOUNT}:role/path/orders", action, resource);',
        'permit (principal == Caller::"alias/42", action == Action::"vend", resource);',
        'permit (principal, action == Action::"vend", resource == Credential::"tenant-a");',
        f'permit ({ROLE}, action, resource == System::"vending");',
        f'permit ({ROLE}, action == Action::"vend", resource) when {{ context.count < 1 }};',
        f'permit ({ROLE}, action == Action::"vend", resource) when {{ context.count > 500 }};',
        f'permit ({ROLE}, action == Action::"inspect", resource) when {{ context.count > 1 }};',
        f'permit ({ROLE}, action == Action::"vend", resource) when {{ context.via == "invoke" }};',
        'forbid (principal == Caller::"alias/x", action, resource) when { context has sourceIp };',
        f'permit ({ROLE}, action == Action::"vend", resource) when {{ context.via == "proof" && context has vpce }};',
        f'permit ({ROLE}, action == Action::"vend", resource) when {{ context.via == "API" }};',
        'permit (principal, action == Action::"operate", resource == System::"vend");',
    ],
)
def test_a_rule_that_no_request_meets_is_an_error(rule: str) -> None:
    finding = only(f'@id("a") {rule}')
    assert finding.level == "error"
    assert finding.problem.startswith("never applies: ")


def test_a_general_permit_on_the_system_is_told_that_operate_must_be_named() -> None:
    assert (
        "operate is given only by a rule that names it"
        in only(f'@id("a") permit ({ROLE}, action, resource is System);').problem
    )


def test_a_template_is_an_error_since_nobody_fills_it_in() -> None:
    assert "template" in only("permit (principal == ?principal, action, resource);").problem


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (f'permit ({ROLE}, action == Action::"vend", resource in Environment::"sandbox")', "says the same as other"),
        (
            f'permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbox/a")',
            "other (line 1) allows all of it",
        ),
        (
            f'permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbox/a") when {{ context.count < 9 }}',
            "other (line 1) allows all of it",
        ),
    ],
)
def test_what_a_wider_permit_gives_already_is_a_warning(rules: str, said: str) -> None:
    wide = f'@id("other") permit ({ROLE}, action == Action::"vend", resource in Environment::"sandbox");'
    finding = only(f'{wide}\n@id("a") {rules};')
    assert (finding.level, finding.line, finding.rule) == ("warning", 2, "a")
    assert said in finding.problem


@pytest.mark.parametrize(
    "narrow",
    [
        # Without a budget it lifts the limit of the other.
        f'@id("a") permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbox/a");',
        # The lower of two budgets holds.
        f'@id("a") @budget("2/day") permit ({ROLE}, action == Action::"vend", resource in Environment::"sandbox");',
        # Its condition fails where the count is large, and that denies.
        f'@id("a") forbid ({ROLE}, action == Action::"vend", resource) when {{ context.count + {policies.BIG} > 0 }};',
    ],
)
def test_what_changes_something_after_all_is_no_dead_rule(narrow: str) -> None:
    wide = f'@id("b") @budget("1/day") permit ({ROLE}, action == Action::"vend", resource in Environment::"sandbox");'
    assert found(f"{wide}\n{narrow}") == []


def test_a_permit_whose_condition_can_fail_is_not_called_covered() -> None:
    wide = f'@id("b") permit ({ROLE}, action == Action::"vend", resource in Environment::"sandbox");'
    fails = f"when {{ context.count + {policies.BIG} > 0 }}"
    assert (
        found(
            f'{wide}\n@id("a") permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbox/a") {fails};'
        )
        == []
    )


def test_a_permit_behind_an_unconditional_forbid_is_a_warning_that_names_it() -> None:
    finding = only(
        f'@id("a") permit ({ROLE}, action == Action::"vend", resource == Credential::"production/a");\n'
        '@id("b") forbid (principal, action, resource in Environment::"production");'
    )
    assert (finding.level, finding.rule) == ("warning", "a")
    assert "b (line 2) forbids all of it" in finding.problem


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('permit (principal, action == Action::"vend", resource in Environment::"sandbox")', "open to any caller"),
        (f'permit ({ROLE}, action, resource in Environment::"sandbox")', "open for any action (but operate"),
        (f'permit ({ROLE}, action == Action::"vend", resource)', "open on any credential of any environment"),
        (
            "permit (principal, action, resource)",
            "open to any caller, for any action (but operate, which must be named), on any",
        ),
        (
            'permit (principal, action == Action::"vend", resource == Credential::"sandbox/a") when { context.count < 3 }',
            "any caller",
        ),
    ],
)
def test_a_permit_that_is_wide_open_is_a_warning_that_names_what_is(rule: str, said: str) -> None:
    finding = only(f'@id("a") {rule};')
    assert finding.level == "warning"
    assert said in finding.problem


@pytest.mark.parametrize(
    "rule",
    [
        "forbid (principal, action, resource)",
        f'permit (principal, action == Action::"vend", resource in Environment::"sandbox") when {{ {ROLE} }}',
        f'permit (principal in Account::"{ACCOUNT}", action == Action::"vend", resource in Environment::"sandbox") {BUT_NOBODY}',
        f'permit ({ROLE}, action == Action::"vend", resource) when {{ resource in Environment::"sandbox" }}',
    ],
)
def test_a_forbid_and_a_permit_that_its_condition_narrows_are_not_wide_open(rule: str) -> None:
    assert found(f'@id("a") {rule};') == []


@pytest.mark.parametrize("kind", ["isIpv4", "isIpv6", "isLoopback", "isMulticast"])
def test_a_permit_for_any_caller_with_an_address_of_some_kind_is_wide_open(kind: str) -> None:
    when = f"when {{ context has sourceIp && context.sourceIp.{kind}() }}"
    rule = f'permit (principal, action == Action::"vend", resource == Credential::"sandbox/a") {when}'
    assert "open to any caller" in only(f'@id("a") {rule};').problem


def test_a_permit_that_names_no_caller_and_is_not_seen_through_is_not_called_fine() -> None:
    rule = 'permit (principal, action == Action::"vend", resource == Credential::"sandbox/a") when { context.count * 2 == 1 }'
    assert "cannot be seen" in only(f'@id("a") {rule};').problem


@pytest.mark.parametrize("who", [f'principal in Account::"{ACCOUNT}"', 'principal == Caller::"alias/live"'])
@pytest.mark.parametrize(
    "what",
    [
        'action == Action::"vend", resource == Credential::"sandbox/a"',
        'action == Action::"operate", resource == System::"vending"',
    ],
)
def test_a_permit_for_the_alias_of_nobody_is_a_warning(who: str, what: str) -> None:
    finding = only(f'@id("a") permit ({who}, {what});')
    assert (finding.level, "lets in alias/live" in finding.problem) == ("warning", True)
    through_proof = f'@id("a") permit ({who}, {what}) when {{ context.via == "proof" }};'
    assert not any("alias/live, which is nobody" in finding.problem for finding in found(through_proof))


ELSEWHERE_THAN_HOME = 'context has sourceIp && !context.sourceIp.isInRange(ip("10.0.0.0/8"))'


@pytest.mark.parametrize(
    ("passed", "closed"),
    [
        (
            'when { context.via == "api" } unless { context has vpce }',
            'when { context.via != "invoke" } unless { context has vpce }',
        ),
        (f"when {{ {ELSEWHERE_THAN_HOME} }}", f'when {{ context.via == "proof" || ({ELSEWHERE_THAN_HOME}) }}'),
    ],
)
def test_a_forbid_that_a_role_gets_around_with_a_proof_is_a_warning(passed: str, closed: str) -> None:
    head = '@id("a") forbid (principal, action, resource in Environment::"production")'
    finding = only(f"{head} {passed};")
    assert (finding.level, "gets around it" in finding.problem) == ("warning", True)
    assert found(f"{head} {closed};") == []


def test_a_forbid_for_an_alias_or_for_every_door_is_no_such_thing() -> None:
    for who, condition in (('principal == Caller::"alias/job"', ""), ("principal", "unless { context has vpce }")):
        assert found(f'@id("a") forbid ({who}, action, resource in Environment::"production") {condition};') == []


def test_a_rule_needs_an_id_and_one_of_its_own() -> None:
    assert only(f'permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbox/a");').level == "warning"
    twice = found(
        f'@id("a") permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbox/a");\n'
        f'@id("a") permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbox/b");'
    )
    assert [(finding.level, finding.line) for finding in twice] == [("error", 1), ("error", 2)]


def test_an_environment_without_a_host_is_a_warning() -> None:
    text = f'@id("a") permit ({ROLE}, action == Action::"vend", resource == Credential::"sandbx/a");'
    assert '"sandbx" has no host' in only(text).problem
    assert findings(text, SCHEMA) == []


@settings(max_examples=16)
@given(rules=policies.texts(), offset=st.integers(0, 60))
def test_a_rule_that_is_said_never_to_apply_decides_nothing(rules: tuple[str, ...], offset: int) -> None:
    for rule in policies.book(rules).rules:
        if never_applies(rule, SCHEMA):
            alone = policies.policy((rule.text,))
            assert not any(question.ask(alone).policy_ids for question in QUESTIONS[offset::61])


@settings(max_examples=16)
@given(rules=policies.texts(), offset=st.integers(0, 60))
def test_taking_out_what_is_said_to_be_dead_changes_no_decision(rules: tuple[str, ...], offset: int) -> None:
    book = policies.book(rules)
    dead = {
        rule.id
        for number, rule in enumerate(book.rules)
        if never_applies(rule, SCHEMA) or redundant(rule, book.rules, number)
    }
    without = policies.policy(tuple(rule.text for rule in book.rules if rule.id not in dead))
    for question in QUESTIONS[offset::61] if dead else ():
        before, after = question.ask(book.policy), question.ask(without)
        assert before.allowed == after.allowed
        limits = [{(one.limit, one.window_seconds) for one in decision.budgets} for decision in (before, after)]
        assert limits[0] == limits[1]


@settings(max_examples=12)
@given(rules=policies.texts(most=1))
def test_what_never_applies_is_told_of_every_rule_that_the_questions_never_meet(rules: tuple[str, ...]) -> None:
    # The other way round, for the rules that can be seen through.
    for rule in policies.book(rules).rules:
        if rule.misnamed or not Values.of([rule]).sure:
            continue
        alone = policies.policy((rule.text,))
        assert never_applies(rule, SCHEMA) or any(
            question.ask(alone).policy_ids for question in (*ELSEWHERE, *QUESTIONS)
        )
