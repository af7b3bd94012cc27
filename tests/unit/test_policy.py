import cedarpy
import pytest

from imburse_auth import CredentialId
from tests.machine import ACCOUNT, POLICY_DIR
from vending.access.caller import Caller
from vending.access.policy import Policy

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
    assert not rules.names("sandbox/tenant-b")


def test_the_context_of_a_request_fits_the_schema() -> None:
    """What decide() builds, checked by Cedar itself against the schema, which decide() leaves out to be quick."""
    request = {
        "principal": {"type": "Caller", "id": ORDERS.id},
        "action": {"type": "Action", "id": "vend"},
        "resource": {"type": "Credential", "id": "sandbox/tenant-a"},
        "context": {"count": 1, "via": "api", "sourceIp": {"__extn": {"fn": "ip", "arg": "::1"}}, "vpce": "vpce-1"},
    }
    assert cedarpy.is_authorized(request, "permit (principal, action, resource);", [], SCHEMA).allowed
