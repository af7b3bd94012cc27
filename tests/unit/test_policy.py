from dataclasses import FrozenInstanceError
from pathlib import Path

import cedarpy
import pytest

from imburse_auth import CredentialId
from tests.machine import ACCOUNT, POLICY_DIR
from vending.access.caller import Caller
from vending.access.limit import Budget
from vending.access.policy import Decision, Policy, System

SCHEMA = (POLICY_DIR / "schema.cedarschema").read_text()
TENANT_A = CredentialId("sandbox", "tenant-a")
ORDERS = Caller(f"arn:aws:iam::{ACCOUNT}:role/orders", ACCOUNT, "api", "10.0.0.7")
STAGES = sorted(path.stem for path in POLICY_DIR.glob("*.cedar"))


def policy(text: str) -> Policy:
    return Policy(text, SCHEMA)


@pytest.mark.parametrize("stage", STAGES)
def test_each_stages_file_is_sound(stage: str) -> None:
    assert Policy.load(POLICY_DIR / f"{stage}.cedar")


def test_there_is_a_file_for_each_stage() -> None:
    assert STAGES == ["dev", "production", "sandbox"]


@pytest.mark.parametrize("stage", STAGES)
def test_each_rule_has_an_id_of_its_own_for_the_audit_record(stage: str) -> None:
    text = (POLICY_DIR / f"{stage}.cedar").read_text()
    ids = [line for line in text.splitlines() if line.startswith("@id(")]
    rules = [line for line in text.splitlines() if line.startswith(("permit", "forbid"))]
    assert len(ids) == len(set(ids)) == len(rules)


def test_an_empty_policy_denies() -> None:
    assert policy("").decide(ORDERS, "vend", TENANT_A).allowed is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permit (", "unexpected"),
        ("permit (principal, action, resource) when { context.cuont < 3 };", "cuont"),
        ('permit (principal, action, resource) when { context.vpce == "x" };', "vpce"),
        ('permit (principal == User::"x", action, resource);', "User"),
        ('permit (principal, action == Action::"give", resource);', "give"),
        ('permit (principal, action, resource) when { context.count < "3" };', "type"),
    ],
)
def test_a_policy_that_is_not_sound_is_refused_and_says_why(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        policy(text)


def test_a_file_that_is_missing_or_wrong_is_named(tmp_path: object) -> None:
    with pytest.raises(ValueError, match=r"access policy nowhere\.cedar"):
        Policy.load(POLICY_DIR / "nowhere.cedar")


def test_a_file_that_cannot_be_read_says_what_kept_it_from_being_read() -> None:
    with pytest.raises(ValueError, match=r"^access policy nowhere\.cedar: ") as caught:
        Policy.load(POLICY_DIR / "nowhere.cedar")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_request_is_for_one_token_unless_it_says_otherwise() -> None:
    rules = policy("permit (principal, action, resource) when { context.count == 1 };")
    assert rules.decide(ORDERS, "vend", TENANT_A).allowed
    assert not rules.decide(ORDERS, "vend", TENANT_A, 2).allowed


@pytest.mark.parametrize(("thing", "name"), [(Decision(False, ()), "allowed"), (System(), "name")])
def test_neither_a_decision_nor_what_it_is_about_changes(thing: object, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(thing, name, True)


def test_a_forbid_wins_over_every_permit() -> None:
    rules = policy(
        'permit (principal, action, resource); @id("stop") forbid (principal, action, resource in Environment::"sandbox");'
    )
    decision = rules.decide(ORDERS, "vend", TENANT_A)
    assert (decision.allowed, decision.policy_ids) == (False, ("stop",))
    assert rules.decide(ORDERS, "vend", CredentialId("production", "a")).policy_ids == ("policy0",)


def test_a_rule_that_fails_while_it_is_evaluated_denies() -> None:
    overflow = "9223372036854775807 + context.count > 0"
    rules = policy(f"permit (principal, action, resource); forbid (principal, action, resource) when {{ {overflow} }};")
    assert rules.decide(ORDERS, "vend", TENANT_A).allowed is False


@pytest.mark.parametrize(
    ("condition", "caller", "allowed"),
    [
        ('principal in Account::"123456789012"', ORDERS, True),
        ('principal in Account::"210987654321"', ORDERS, False),
        ('resource in Environment::"sandbox"', ORDERS, True),
        ('resource in Environment::"production"', ORDERS, False),
        ('context.via == "api"', ORDERS, True),
        ('context.via == "invoke"', Caller("alias/x", ACCOUNT, "invoke"), True),
        ('context has sourceIp && context.sourceIp.isInRange(ip("10.0.0.0/8"))', ORDERS, True),
        ('context has sourceIp && context.sourceIp.isInRange(ip("192.168.0.0/16"))', ORDERS, False),
        ("context has sourceIp", Caller("alias/x", ACCOUNT, "invoke"), False),
        ('context has vpce && context.vpce == "vpce-1"', Caller(ORDERS.id, ACCOUNT, "api", None, "vpce-1"), True),
        ("context.count <= 5", ORDERS, True),
        ("context.count <= 4", ORDERS, False),
    ],
)
def test_what_a_rule_can_look_at(condition: str, caller: Caller, allowed: bool) -> None:
    rules = policy(f"permit (principal, action, resource) when {{ {condition} }};")
    assert rules.decide(caller, "vend", TENANT_A, 5).allowed is allowed


@pytest.mark.parametrize("name", ["Tenant-A", "tenant-a.", "TENANT-A", "tenant-aa"])
def test_credentials_are_compared_to_the_letter(name: str) -> None:
    rules = policy('permit (principal, action, resource == Credential::"sandbox/tenant-a");')
    assert rules.decide(ORDERS, "vend", TENANT_A).allowed
    if name != "tenant-a.":  # no credential can have that name
        assert rules.decide(ORDERS, "vend", CredentialId("sandbox", name)).allowed is False


def test_a_caller_cannot_end_its_own_quotes() -> None:
    rules = policy(f'permit (principal == Caller::"{ORDERS.id}", action, resource);')
    evil = Caller(f'x", action, resource); permit (principal == Caller::"{ORDERS.id}', ACCOUNT, "api")
    assert rules.decide(evil, "vend", TENANT_A).allowed is False


def test_the_policy_knows_which_credentials_it_names() -> None:
    rules = Policy.load(POLICY_DIR / "dev.cedar")
    assert rules.names("sandbox/tenant-a")
    assert not rules.names("sandbox/tenant-z")


def test_only_a_credential_is_named_as_one() -> None:
    rules = policy('@type("Credential") permit (principal == Caller::"sandbox/tenant-a", action, resource);')
    assert not rules.names("sandbox/tenant-a")
    noted = policy('@id("sandbox/tenant-a") @type("Credential") permit (principal, action, resource);')
    assert not noted.names("sandbox/tenant-a")


def test_a_rule_names_as_many_credentials_as_it_likes() -> None:
    names = [f"sandbox/tenant-{number}" for number in range(1000)]
    chain = " || ".join(f'resource == Credential::"{name}"' for name in names)
    rules = policy(f"permit (principal, action, resource) when {{ {chain} }};")
    assert all(map(rules.names, names))
    assert rules.decide(ORDERS, "vend", CredentialId("sandbox", "tenant-999")).allowed


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("vend", {"type": "Credential", "id": "sandbox/tenant-a"}),
        ("operate", {"type": "Credential", "id": "sandbox/tenant-a"}),
        ("operate", {"type": "System", "id": "vending"}),
    ],
)
def test_the_context_of_a_request_fits_the_schema(action: str, resource: dict[str, str]) -> None:
    """What decide() builds, checked by Cedar itself against the schema, which decide() leaves out to be quick."""
    request = {
        "principal": {"type": "Caller", "id": ORDERS.id},
        "action": {"type": "Action", "id": action},
        "resource": resource,
        "context": {"count": 1, "via": "api", "sourceIp": {"__extn": {"fn": "ip", "arg": "::1"}}, "vpce": "vpce-1"},
    }
    assert cedarpy.is_authorized(request, "permit (principal, action, resource);", [], SCHEMA).allowed


# Operate


@pytest.mark.parametrize(
    ("rule", "credential", "system"),
    [
        ("permit (principal, action, resource);", False, False),
        ('permit (principal, action in [Action::"vend", Action::"inspect"], resource);', False, False),
        ('permit (principal, action, resource) when { action == Action::"operate" };', False, False),
        ('permit (principal, action == Action::"operate", resource);', True, True),
        ('permit (principal, action in [Action::"vend", Action::"operate"], resource);', True, True),
        ('permit (principal, action == Action::"operate", resource == System::"vending");', False, True),
        ('permit (principal, action == Action::"operate", resource == System::"other");', False, False),
        ('permit (principal, action == Action::"operate", resource in Environment::"sandbox");', True, False),
        ('permit (principal, action == Action::"operate", resource == Credential::"sandbox/tenant-a");', True, False),
    ],
)
def test_operating_needs_a_permit_that_names_it(rule: str, credential: bool, system: bool) -> None:
    rules = policy(rule)
    assert rules.decide(ORDERS, "operate", TENANT_A).allowed is credential
    assert rules.decide(ORDERS, "operate", System()).allowed is system


def test_a_permit_about_any_action_does_not_stand_in_the_way_of_one_that_names_operate() -> None:
    rules = policy(
        'permit (principal, action, resource); @id("brake") permit (principal, action == Action::"operate", resource);'
    )
    assert rules.decide(ORDERS, "operate", System()).policy_ids == ("brake", "policy0")
    assert rules.decide(ORDERS, "vend", TENANT_A).policy_ids == ("policy0",)


def test_a_permit_to_operate_does_not_vend() -> None:
    rules = policy('permit (principal, action == Action::"operate", resource);')
    assert not rules.decide(ORDERS, "vend", TENANT_A).allowed
    assert not rules.decide(ORDERS, "inspect", TENANT_A).allowed


def test_a_forbid_stops_an_operator_too() -> None:
    rules = policy(
        'permit (principal, action == Action::"operate", resource); forbid (principal, action, resource == System::"vending");'
    )
    assert rules.decide(ORDERS, "operate", TENANT_A).allowed
    assert not rules.decide(ORDERS, "operate", System()).allowed


def test_the_system_is_no_resource_of_a_vend() -> None:
    with pytest.raises(ValueError, match="policy0"):
        policy('permit (principal, action == Action::"vend", resource == System::"vending");')


# Budgets


def budgeted(*budgets: str | None, forbid: str = "") -> Policy:
    """One permit each, with these budgets."""
    rules = [
        f'@id("rule-{number}") ' + (f'@budget("{budget}") ' if budget else "") + "permit (principal, action, resource);"
        for number, budget in enumerate(budgets)
    ]
    return policy("\n".join(rules) + forbid)


@pytest.mark.parametrize(
    ("text", "limit", "seconds"),
    [("1/second", 1, 1), ("600/minute", 600, 60), ("7/hour", 7, 3600), ("999999999/day", 999_999_999, 86_400)],
)
def test_a_decision_names_the_budget_of_its_rule(text: str, limit: int, seconds: int) -> None:
    assert budgeted(text).decide(ORDERS, "vend", TENANT_A).budgets == (Budget("rule-0", limit, seconds),)


def test_every_budget_of_the_permits_that_decided_counts() -> None:
    decision = budgeted("10/minute", "100/hour").decide(ORDERS, "vend", TENANT_A)
    assert {(budget.policy_id, budget.limit) for budget in decision.budgets} == {("rule-0", 10), ("rule-1", 100)}


def test_a_permit_without_budget_among_them_lifts_the_limit() -> None:
    assert budgeted("10/minute", None).decide(ORDERS, "vend", TENANT_A).budgets == ()


def test_a_permit_that_did_not_decide_brings_no_budget_and_lifts_none() -> None:
    rules = policy(
        '@id("a") @budget("5/minute") permit (principal, action, resource);'
        '@id("b") @budget("1/minute") permit (principal, action, resource) when { context.count > 100 };'
        'permit (principal, action, resource == Credential::"sandbox/other");'
    )
    assert rules.decide(ORDERS, "vend", TENANT_A).budgets == (Budget("a", 5, 60),)


def test_a_denial_has_no_budget() -> None:
    rules = budgeted("5/minute", forbid='forbid (principal, action, resource in Environment::"sandbox");')
    decision = rules.decide(ORDERS, "vend", TENANT_A)
    assert (decision.allowed, decision.budgets) == (False, ())


def test_with_more_than_ten_rules_each_keeps_its_own_budget() -> None:
    rules = policy(
        "".join(
            f'@id("r{n}") @budget("{n + 1}/minute") permit (principal, action, resource == Credential::"sandbox/t{n}");'
            for n in range(25)
        )
    )
    for n in range(25):
        budgets = rules.decide(ORDERS, "vend", CredentialId("sandbox", f"t{n}")).budgets
        assert budgets == (Budget(f"r{n}", n + 1, 60),)


@pytest.mark.parametrize(
    "text",
    [
        "", "600", "600/", "/minute", "600/minutes", "600/Minute", "600 / minute", " 600/minute", "600/minute ", "600/minute\n", "0/minute",
        "-1/minute", "+1/minute", "06/minute", "1.5/minute", "1e3/minute", "٦/minute", "600/week", "600 per minute", "1000000000/minute", "unlimited",
    ],
)  # fmt: skip
def test_a_malformed_budget_keeps_the_policy_from_loading(text: str) -> None:
    # Cedar's own escape for the line break; a raw one would do as well.
    with pytest.raises(ValueError, match="rule-0: @budget must be"):
        policy(f'@id("rule-0") @budget("{text}") permit (principal, action, resource);')


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('@id("a") @budget permit (principal, action, resource);', "a: @budget must be"),
        ('@id("a") @budget("5/minute") forbid (principal, action, resource);', "a: @budget limits a permit"),
        ('@id("a") @bugdet("5/minute") permit (principal, action, resource);', "a: @bugdet is nearly @budget"),
        ('@id("a") @Budget("5/minute") permit (principal, action, resource);', "a: @Budget is nearly @budget"),
        ('@id("a") @budgets("5/minute") permit (principal, action, resource);', "a: @budgets is nearly @budget"),
        ('@budget("5/minute") permit (principal, action, resource);', "policy0: .* needs an @id of its own"),
        ('@id("a#b") @budget("5/minute") permit (principal, action, resource);', "needs an @id"),
        (f'@id("{"a" * 129}") @budget("5/minute") permit (principal, action, resource);', "needs an @id"),
        (
            '@id("a") @budget("5/minute") permit (principal, action, resource); @id("a") permit (principal, action, resource);',
            "a: a rule with @budget needs an @id of its own",
        ),
    ],
)
def test_a_budget_that_would_not_limit_what_it_seems_to_is_refused(rule: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        policy(rule)


def test_other_annotations_are_nobodys_business() -> None:
    assert policy('@id("a") @owner("payments") @description("") permit (principal, action, resource);')


def test_a_file_with_a_malformed_budget_is_named(tmp_path: Path) -> None:
    (tmp_path / "schema.cedarschema").write_text(SCHEMA)
    (tmp_path / "dev.cedar").write_text('@id("a") @budget("many") permit (principal, action, resource);')
    with pytest.raises(ValueError, match=r"access policy dev\.cedar: a: @budget must be"):
        Policy.load(tmp_path / "dev.cedar")


def test_the_example_set_shows_a_budget_and_who_holds_the_brake() -> None:
    rules = Policy.load(POLICY_DIR / "dev.cedar")
    refunds = Caller(f"arn:aws:iam::{ACCOUNT}:role/refunds", ACCOUNT, "api")
    operators = Caller(f"arn:aws:iam::{ACCOUNT}:role/operators", ACCOUNT, "api")
    assert rules.decide(refunds, "vend", TENANT_A).budgets == (Budget("refunds-tenant-a", 60, 60),)
    assert rules.decide(ORDERS, "vend", TENANT_A).budgets == ()
    assert rules.decide(operators, "operate", TENANT_A).policy_ids == ("operators-brake-sandbox",)
    assert rules.decide(operators, "operate", System()).policy_ids == ("operators-brake-system",)
    assert not rules.decide(operators, "operate", CredentialId("production", "tenant-a")).allowed
    for other in (ORDERS, refunds, Caller("alias/settlement-job", ACCOUNT, "invoke")):
        assert not rules.decide(other, "operate", TENANT_A).allowed
        assert not rules.decide(other, "operate", System()).allowed


@pytest.mark.parametrize("stage", ["sandbox", "production"])
def test_nobody_operates_a_stage_unless_somebody_says_who(stage: str) -> None:
    rules = Policy.load(POLICY_DIR / f"{stage}.cedar")
    report = Caller("alias/access-report", ACCOUNT, "invoke")
    assert not rules.decide(report, "operate", System()).allowed
    assert not rules.decide(report, "operate", CredentialId(stage, "tenant-a")).allowed
