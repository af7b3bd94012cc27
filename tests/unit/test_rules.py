"""The rules as text: where each stands, what it is about, which credentials they name or miss."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imburse_auth import CredentialId
from tests import policies
from tests.machine import ACCOUNT, POLICY_DIR
from tests.policies import SCHEMA
from vending.access.rules import Rule, RuleBook, Scope, statements

TENANT_A = CredentialId("sandbox", "tenant-a")
ORDERS = f"arn:aws:iam::{ACCOUNT}:role/orders"
ANY = "(principal, action, resource)"


def one(text: str) -> Rule:
    (rule,) = RuleBook(text, SCHEMA).rules
    return rule


@pytest.mark.parametrize("stage", ["dev", "sandbox", "production"])
def test_each_rule_of_each_stage_is_found_where_it_stands(stage: str) -> None:
    path = POLICY_DIR / f"{stage}.cedar"
    lines = path.read_text().splitlines()
    rules = RuleBook.load(path).rules
    assert [rule.id for rule in rules] == [line.split('"')[1] for line in lines if line.startswith("@id(")]
    for rule in rules:
        assert lines[rule.line - 1] == f'@id("{rule.id}")'
        assert "\n".join(lines[rule.line - 1 :]).startswith(rule.text)


def test_a_semicolon_in_a_text_or_a_comment_ends_no_rule() -> None:
    text = f"""// permit {ANY};
@id("a;\\"b") // no; end
permit {ANY} when {{ context has vpce && context.vpce == "x;//y" }};   @id("c") forbid
{ANY};
// the end;
"""
    found = list(statements(text))
    assert [(one.line, one.text[:8]) for one in found] == [(2, '@id("a;\\'), (3, '@id("c")')]
    assert [rule.id for rule in RuleBook(text, SCHEMA).rules] == ['a;"b', "c"]


def test_a_rule_without_its_semicolon_is_still_a_statement() -> None:
    assert [one.text for one in statements("permit (\n  principal\n// x\n")] == ["permit (\n  principal\n// x"]


def test_a_file_that_is_missing_or_wrong_is_named() -> None:
    with pytest.raises(ValueError, match=r"access policy nowhere\.cedar"):
        RuleBook.load(POLICY_DIR / "nowhere.cedar")


@pytest.mark.parametrize(
    ("head", "caller", "resource"),
    [
        ("principal, action, resource", Scope(), Scope()),
        ('principal == Caller::"alias/x", action, resource is System', Scope("Caller", "alias/x"), Scope("System")),
        (
            'principal in Caller::"alias/x", action, resource == Credential::"a/b"',
            Scope("Caller", "alias/x"),
            Scope("Credential", "a/b"),
        ),
        (
            f'principal in Account::"{ACCOUNT}", action, resource in Environment::"a"',
            Scope("Caller", within=ACCOUNT),
            Scope("Credential", within="a"),
        ),
        (
            f'principal is Caller in Account::"{ACCOUNT}", action, resource is Credential in Environment::"a"',
            Scope("Caller", within=ACCOUNT),
            Scope("Credential", within="a"),
        ),
    ],
)
def test_a_head_says_whom_and_what_a_rule_means(head: str, caller: Scope, resource: Scope) -> None:
    rule = one(f"permit ({head});")
    assert (rule.caller, rule.resource) == (caller, resource)


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        (f"permit {ANY};", {"vend", "inspect"}),  # operate must be named
        (f"forbid {ANY};", {"vend", "inspect", "operate"}),
        ('permit (principal, action == Action::"operate", resource);', {"operate"}),
        ('permit (principal, action in Action::"vend", resource);', {"vend"}),
        ('permit (principal, action in [Action::"vend", Action::"operate"], resource);', {"vend", "operate"}),
    ],
)
def test_a_permit_gives_operate_only_by_its_name(text: str, actions: set[str]) -> None:
    assert one(text).actions == actions


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (f'principal == Caller::"arn:aws:sts::{ACCOUNT}:assumed-role/orders/s", action, resource', ORDERS),
        (f'principal == Caller::"arn:aws:iam::{ACCOUNT}:role/path/orders", action, resource', ORDERS),
        ('principal == Caller::"alias/42", action, resource', "alias"),
        ('principal == Caller::"orders", action, resource', "no caller"),
        ('principal in Account::"1234", action, resource', "twelve digits"),
        ('principal, action, resource == Credential::"sandbox"', "no credential"),
        ('principal, action, resource == Credential::"sandbox/a/b"', "no credential"),
        ('principal, action, resource in Environment::"sand box"', "no credential"),
        ('principal, action == Action::"operate", resource == System::"vend"', "only System"),
    ],
)
def test_a_name_that_nobody_can_have_is_told(head: str, said: str) -> None:
    assert said in str(one(f"permit ({head});").misnamed)


def test_a_name_as_the_door_gives_it_is_none_of_these() -> None:
    assert [rule.misnamed for rule in RuleBook.load(POLICY_DIR / "dev.cedar").rules] == [None] * 10


def test_a_template_is_no_rule_and_moves_no_other() -> None:
    book = RuleBook(
        f'permit (principal == ?principal, action, resource);\n@id("a") permit {ANY};\nforbid {ANY};', SCHEMA
    )
    assert [(rule.id, rule.line, rule.permits) for rule in book.rules] == [("a", 2, True), ("policy2", 3, False)]
    assert [template.line for template in book.templates] == [1]


def test_credentials_that_do_not_exist_are_told_by_rule_in_heads_and_conditions() -> None:
    book = RuleBook(
        """@id("head") permit (principal, action, resource == Credential::"sandbox/gone");
        @id("condition") permit (principal, action == Action::"vend", resource)
            when { [Credential::"sandbox/tenant-a", Credential::"sandbox/lost"].contains(resource) };
        @id("fine") permit (principal, action, resource == Credential::"sandbox/tenant-a");
        @id("general") permit (principal, action, resource in Environment::"nowhere");""",
        SCHEMA,
    )
    assert book.dangling([TENANT_A]) == {"head": ("sandbox/gone",), "condition": ("sandbox/lost",)}
    assert book.dangling([]) == {
        "head": ("sandbox/gone",),
        "condition": ("sandbox/lost", "sandbox/tenant-a"),
        "fine": ("sandbox/tenant-a",),
    }


def test_a_rule_of_a_thousand_alternatives_is_looked_through_too() -> None:
    alternatives = " || ".join(f'resource == Credential::"sandbox/t{number}"' for number in range(1000))
    book = RuleBook(f"permit (principal, action, resource) when {{ {alternatives} }};", SCHEMA)
    assert len(book.dangling([])["policy0"]) == 1000


@pytest.mark.parametrize(
    ("rules", "reached"),
    [
        ("", False),
        (f"permit {ANY};", True),
        ('permit (principal, action == Action::"inspect", resource);', False),
        ('permit (principal, action == Action::"operate", resource is Credential);', False),
        (
            'permit (principal, action in [Action::"inspect", Action::"vend"], resource in Environment::"sandbox");',
            True,
        ),
        ('permit (principal, action, resource in Environment::"production");', False),
        ('permit (principal, action, resource == Credential::"sandbox/tenant-a") when { context.count < 2 };', True),
        ('permit (principal, action, resource == Credential::"sandbox/tenant-aa");', False),
        ('permit (principal == Caller::"alias/7", action, resource);', False),
        (f'permit {ANY}; forbid (principal, action, resource in Environment::"sandbox");', False),
        (f'permit {ANY}; forbid (principal, action == Action::"inspect", resource);', True),
        (f'permit {ANY}; forbid (principal == Caller::"{ORDERS}", action, resource);', True),
        (f'permit {ANY}; forbid (principal, action, resource) when {{ context.via == "api" }};', True),
    ],
)
def test_a_credential_is_unreached_only_if_nobody_could_vend_it(rules: str, reached: bool) -> None:
    assert RuleBook(rules, SCHEMA).unreached([TENANT_A]) == (() if reached else (TENANT_A,))


@settings(max_examples=30)
@given(rules=policies.texts(), offset=st.integers(0, 30))
def test_whoever_asks_for_an_unreached_credential_is_denied(rules: tuple[str, ...], offset: int) -> None:
    book = policies.book(rules)
    unreached = book.unreached(policies.CREDENTIALS)
    asked = [one for one in policies.QUESTIONS if one.action == "vend" and one.resource in unreached]
    assert not any(question.ask(book.policy).allowed for question in asked[offset::31])
