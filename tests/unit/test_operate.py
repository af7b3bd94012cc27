import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth import CredentialId
from tests.fake_table import FakeTable
from tests.fakes import Clock, private_key
from tests.machine import ACCOUNT, POLICY_DIR
from vending.access.brake import Brake
from vending.access.caller import Caller
from vending.access.policy import Policy, System
from vending.errors import BrakeUnavailable, InvalidRequest, NotAuthorized
from vending.operate import MAX_BODY_CHARACTERS, MAX_TARGET_CHARACTERS, MAX_WHY_CHARACTERS, Operator, Order
from vending.table import TableUnavailable

TENANT_A = CredentialId("sandbox", "tenant-a")
OPERATORS, ORDERS = (Caller(f"arn:aws:iam::{ACCOUNT}:role/{role}", ACCOUNT, "api") for role in ("operators", "orders"))
EVERYTHING = {"operate": "freeze", "scope": "everything", "why": "INC-7: a leak"}
CALLER = EVERYTHING | {"scope": "caller", "target": ORDERS.id}
CREDENTIAL = EVERYTHING | {"scope": "credential", "target": "sandbox/tenant-a"}
THAW = {"operate": "thaw"}


class Bench:
    """An operator with the example policy, a brake on a fake table, and a purge that remembers."""

    def __init__(self) -> None:
        self.table = FakeTable()
        self.clock = Clock()
        self.purged: list[str] = []
        self.purge_failure: Exception | None = None
        self.brake = Brake(self.table, clock=self.clock)
        self.operator = Operator(Policy.load(POLICY_DIR / "dev.cedar"), self.brake, self._purge)

    def _purge(self, credential: CredentialId) -> int:
        if self.purge_failure is not None:
            raise self.purge_failure
        # While it is frozen, or a claim could come in between.
        assert self.brake.stops(credential) == "credential"
        self.purged.append(str(credential))
        return 7

    def obey(self, members: dict[str, Any], caller: Caller = OPERATORS) -> dict[str, Any]:
        """An order whose audit record was written."""
        obeyed = self.operator.obey(caller, Order.read(members))
        obeyed.then()
        return obeyed.body

    def frozen(self, caller: Caller = ORDERS, credential: CredentialId = TENANT_A) -> str | None:
        return Brake(self.table, clock=self.clock).stops(credential, caller)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# What is asked for


@pytest.mark.parametrize(
    ("members", "order"),
    [
        (EVERYTHING, Order("freeze", "everything", None, "INC-7: a leak")),
        (EVERYTHING | {"target": None}, Order("freeze", "everything", None, "INC-7: a leak")),
        (CREDENTIAL | THAW, Order("thaw", "credential", "sandbox/tenant-a", "INC-7: a leak")),
        (CALLER, Order("freeze", "caller", ORDERS.id, "INC-7: a leak")),
        (
            CALLER | {"target": "alias/settlement-job"},
            Order("freeze", "caller", "alias/settlement-job", "INC-7: a leak"),
        ),
    ],
)
def test_an_order_is_read(members: dict[str, Any], order: Order) -> None:
    assert Order.read(members) == order


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:iam::{ACCOUNT}:role/orders",
        f"arn:aws:iam::{ACCOUNT}:role/service/eu/orders",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/i-0123",
    ],
)
def test_a_caller_is_frozen_under_the_name_it_goes_by_here(bench: Bench, arn: str) -> None:
    assert bench.obey(CALLER | {"target": arn})["target"] == ORDERS.id
    assert bench.frozen(ORDERS) == "caller"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({}, "operate"), (EVERYTHING | {"operate": None}, "operate"), (EVERYTHING | {"operate": "Freeze"}, "operate"), (EVERYTHING | {"operate": ["freeze"]}, "operate"),
        (EVERYTHING | {"operate": "delete"}, "operate"), (EVERYTHING | {"operate": {}}, "operate"),
        (EVERYTHING | {"scope": None}, "scope"), (EVERYTHING | {"scope": "all"}, "scope"), (EVERYTHING | {"scope": True}, "scope"), (EVERYTHING | {"scope": ["caller"]}, "scope"),
        (EVERYTHING | {"target": "sandbox/tenant-a"}, "target"), (EVERYTHING | {"target": ""}, "target"),
        (CALLER | {"target": None}, "target"), (CALLER | {"target": ""}, "target"), (CALLER | {"target": 7}, "target"), (CALLER | {"target": "*"}, "target"),
        (CALLER | {"target": "orders"}, "target"), (CALLER | {"target": f"{ORDERS.id}\n"}, "target"), (CALLER | {"target": f"{ORDERS.id}*"}, "target"),
        (CALLER | {"target": f"arn:aws:sts::{ACCOUNT}:assumed-role/orders"}, "target"), (CALLER | {"target": "alias/"}, "target"), (CALLER | {"target": "alias/7"}, "target"),
        (CALLER | {"target": "alias/$LATEST"}, "target"), (CALLER | {"target": "alias/a#b"}, "target"), (CALLER | {"target": f"arn:aws:iam::{ACCOUNT}:role/ordеrs"}, "target"),
        (CALLER | {"target": f"arn:aws:iam::{ACCOUNT}:user/" + "x" * MAX_TARGET_CHARACTERS}, "target"),
        (CREDENTIAL | {"target": "sandbox"}, "target"), (CREDENTIAL | {"target": "sandbox/*"}, "target"), (CREDENTIAL | {"target": "sandbox/../x"}, "target"),
        (CREDENTIAL | {"target": ORDERS.id}, "target"), (CREDENTIAL | {"target": ["sandbox/tenant-a"]}, "target"), (CREDENTIAL | {"target": None}, "target"),
    ],
)  # fmt: skip
def test_an_order_that_is_wrong_is_invalid_and_names_the_field_and_no_value(members: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{field}: ") as refusal:
        Order.read(members)
    assert len(refusal.value.detail) < 200
    assert "ordеrs" not in refusal.value.detail


@pytest.mark.parametrize(
    "why", ["x", "x" * MAX_WHY_CHARACTERS, "Müller hat angerufen, « Σ » 漏洩 🔥", 'a "quoted" \\ reason', "INC-7"]
)
def test_a_why_is_any_printable_text_of_200_characters(why: str) -> None:
    assert Order.read(EVERYTHING | {"why": why}).why == why


@pytest.mark.parametrize(
    "why",
    [
        None, 7, "", " ", "   ", [], ["x"], "x" * (MAX_WHY_CHARACTERS + 1), "a\nb", "a\r\nb", "a\tb", "a\x00b", "a\x1b[31mb", "a\x7fb", "a\x85b", "a\u2028b", "a\u2029b",
        "a\u202eb", "a\u2066b", "a\u200bb", "a\ufeffb", "a\u00a0b", "\ud800",
    ],
)  # fmt: skip
def test_a_why_that_could_play_tricks_in_a_log_is_invalid(why: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^why: must be 1 to 200 printable characters$"):
        Order.read(EVERYTHING | {"why": why})


def test_a_why_that_is_missing_is_invalid() -> None:
    with pytest.raises(InvalidRequest, match=r"^why: "):
        Order.read({"operate": "freeze", "scope": "everything"})


@pytest.mark.parametrize(
    "leak",
    # pragma: allowlist nextline secret (invented)
    [private_key(), "Bearer abcdefghijkl", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"],
    ids=["private key", "bearer", "token"],
)
def test_a_why_that_holds_a_key_or_a_token_is_refused_and_not_repeated(leak: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^why: looks") as refusal:
        Order.read(EVERYTHING | {"why": f"leaked {leak} today"})
    assert leak not in refusal.value.detail


def test_the_longest_order_fits_the_body() -> None:
    target = f"arn:aws:iam::{ACCOUNT}:user/"
    target += "x" * (MAX_TARGET_CHARACTERS - len(target))
    order = CALLER | {"target": target, "why": "🔥" * MAX_WHY_CHARACTERS}
    assert Order.read(order)
    assert len(json.dumps(order)) < MAX_BODY_CHARACTERS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    operate=st.sampled_from(["freeze", "thaw"]) | JSON,
    scope=st.sampled_from(["everything", "caller", "credential"]) | JSON,
    target=st.sampled_from([None, ORDERS.id, "alias/job", "sandbox/tenant-a"]) | JSON,
    why=st.text(max_size=300) | JSON,
)
def test_whatever_is_asked_is_an_order_fit_for_a_record_or_invalid(
    operate: Any, scope: Any, target: Any, why: Any
) -> None:
    try:
        order = Order.read({"operate": operate, "scope": scope, "target": target, "why": why})
    except InvalidRequest:
        return
    assert 1 <= len(order.why) <= 200
    assert all(text.isprintable() for text in order.as_record().values())
    assert order.target is None or len(order.target) <= MAX_TARGET_CHARACTERS
    assert order.resource


# Who may


@pytest.mark.parametrize(
    ("members", "resource"),
    [(EVERYTHING, System("vending")), (CALLER, System("vending")), (CREDENTIAL, TENANT_A)],
)
def test_the_policy_is_asked_about_the_credential_or_the_system(members: dict[str, Any], resource: object) -> None:
    assert Order.read(members).resource == resource


@pytest.mark.parametrize(
    "members", [EVERYTHING, CALLER, CREDENTIAL, EVERYTHING | THAW, CALLER | THAW, CREDENTIAL | THAW]
)
def test_operators_may_and_others_may_not(bench: Bench, members: dict[str, Any]) -> None:
    order = Order.read(members)
    assert bench.operator.decide(OPERATORS, order).allowed
    assert not bench.operator.decide(ORDERS, order).allowed
    assert not bench.operator.decide(Caller("alias/settlement-job", ACCOUNT, "invoke"), order).allowed


def test_operators_of_one_environment_hold_no_brake_of_another(bench: Bench) -> None:
    order = Order.read(CREDENTIAL | {"target": "production/tenant-a"})
    assert not bench.operator.decide(OPERATORS, order).allowed


def test_who_may_operate_credentials_may_not_stop_everything() -> None:
    policy = Policy(
        'permit (principal, action == Action::"operate", resource in Environment::"sandbox");',
        (POLICY_DIR / "schema.cedarschema").read_text(),
    )
    operator = Operator(policy, Brake(FakeTable()), lambda _: 0)
    assert operator.decide(OPERATORS, Order.read(CREDENTIAL)).allowed
    assert not operator.decide(OPERATORS, Order.read(CALLER)).allowed
    assert not operator.decide(OPERATORS, Order.read(EVERYTHING)).allowed


@pytest.mark.parametrize("members", [EVERYTHING, CREDENTIAL, CALLER | THAW, EVERYTHING | THAW])
def test_a_frozen_operator_operates_nothing_least_of_all_itself(bench: Bench, members: dict[str, Any]) -> None:
    bench.brake.freeze("caller", OPERATORS.id, who="alias/other", why="its laptop was stolen")
    for order in (members, CALLER | THAW | {"target": OPERATORS.id}):
        with pytest.raises(NotAuthorized, match="may not do this"):
            bench.obey(order)
    assert [item["sk"] for item in bench.table.partition("brake")] == [f"caller#{OPERATORS.id}"]


def test_an_operator_cannot_lock_itself_out(bench: Bench) -> None:
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/operators/me"
    for target in (OPERATORS.id, session):
        with pytest.raises(InvalidRequest, match=r"^target: is the caller itself"):
            bench.obey(CALLER | {"target": target})
    assert bench.table.partition("brake") == []


def test_a_frozen_everything_can_be_thawed(bench: Bench) -> None:
    bench.obey(EVERYTHING)
    assert bench.frozen() == "everything"
    bench.obey(EVERYTHING | THAW)
    assert bench.frozen() is None


# What comes of it


@pytest.mark.parametrize(
    ("members", "scope"), [(EVERYTHING, "everything"), (CALLER, "caller"), (CREDENTIAL, "credential")]
)
def test_a_freeze_holds_before_its_record_and_a_thaw_only_after(
    bench: Bench, members: dict[str, Any], scope: str
) -> None:
    bench.operator.obey(OPERATORS, Order.read(members))
    assert bench.frozen() == scope
    thaw = bench.operator.obey(OPERATORS, Order.read(members | THAW))
    assert bench.frozen() == scope
    thaw.then()
    assert bench.frozen() is None


def test_the_answer_says_what_holds_and_from_when(bench: Bench) -> None:
    assert bench.obey(CREDENTIAL) == {
        "operate": "freeze",
        "scope": "credential",
        "target": "sandbox/tenant-a",
        "effectiveWithinSeconds": 10,
        "purged": 7,
    }
    assert bench.obey(EVERYTHING) == {"operate": "freeze", "scope": "everything", "effectiveWithinSeconds": 10}
    assert bench.obey(CALLER | THAW) == {
        "operate": "thaw",
        "scope": "caller",
        "target": ORDERS.id,
        "effectiveWithinSeconds": 10,
    }


def test_who_and_why_stand_in_the_table_and_the_order_in_the_record(bench: Bench) -> None:
    bench.obey(CREDENTIAL)
    (item,) = bench.table.partition("brake")
    assert (item["sk"], item["who"], item["why"]) == ("credential#sandbox/tenant-a", OPERATORS.id, "INC-7: a leak")
    assert Order.read(CREDENTIAL).as_record() == CREDENTIAL
    assert Order.read(EVERYTHING).as_record() == EVERYTHING


def test_what_is_kept_of_a_credential_is_thrown_away_at_the_freeze_and_again_before_the_thaw(bench: Bench) -> None:
    bench.obey(CREDENTIAL)
    assert bench.purged == ["sandbox/tenant-a"]
    bench.obey(CREDENTIAL | THAW)
    assert bench.purged == ["sandbox/tenant-a"] * 2
    assert bench.frozen() is None


@pytest.mark.parametrize("members", [EVERYTHING, CALLER])
def test_other_freezes_throw_nothing_away(bench: Bench, members: dict[str, Any]) -> None:
    bench.obey(members)
    bench.obey(members | THAW)
    assert bench.purged == []


def test_a_freeze_holds_though_the_pool_could_not_be_purged(bench: Bench) -> None:
    bench.purge_failure = TableUnavailable("ThrottlingException")
    assert "purged" not in bench.obey(CREDENTIAL)
    assert bench.frozen() == "credential"


def test_a_credential_whose_pool_could_not_be_purged_stays_frozen(bench: Bench) -> None:
    bench.obey(CREDENTIAL)
    bench.purge_failure = TableUnavailable("ThrottlingException")
    with pytest.raises(BrakeUnavailable):
        bench.obey(CREDENTIAL | THAW)
    assert bench.frozen() == "credential"


@pytest.mark.parametrize("members", [EVERYTHING, CALLER | THAW])
def test_without_a_table_an_operator_is_told_so(bench: Bench, members: dict[str, Any]) -> None:
    bench.table.failure = TableUnavailable("ReadTimeoutError")
    with pytest.raises(BrakeUnavailable):
        bench.obey(members)


def test_a_freeze_may_be_repeated_with_another_why(bench: Bench) -> None:
    bench.obey(CREDENTIAL)
    bench.obey(CREDENTIAL | {"why": "INC-8"})
    (item,) = bench.table.partition("brake")
    assert item["why"] == "INC-8"


def test_a_thaw_of_what_is_not_frozen_is_no_error(bench: Bench) -> None:
    assert bench.obey(CALLER | THAW)["operate"] == "thaw"
