from typing import Any

import pytest

from imburse_auth import CredentialId
from tests.fake_table import FakeTable
from tests.fakes import Clock
from vending.access.brake import FRESH_SECONDS, OPERATE_ATTEMPTS, RETRY_SECONDS, Brake, Scope
from vending.access.caller import Caller
from vending.errors import BrakeUnavailable, NotAuthorized
from vending.table import TableUnavailable

TENANT_A, TENANT_B = CredentialId("sandbox", "tenant-a"), CredentialId("sandbox", "tenant-b")
ORDERS, REFUNDS, OPERATORS = (
    Caller(f"arn:aws:iam::123456789012:role/{role}", "123456789012", "api")
    for role in ("orders", "refunds", "operators")
)
TARGETS: list[tuple[Scope, str | None]] = [
    ("everything", None),
    ("caller", ORDERS.id),
    ("credential", "sandbox/tenant-a"),
]
each_scope = pytest.mark.parametrize(("scope", "target"), TARGETS)


class Bench:
    """Two environments on one table: the operator's, and the one that vends."""

    def __init__(self) -> None:
        self.table = FakeTable()
        self.clock = Clock()
        self.unavailable: list[None] = []
        self.here, self.elsewhere = self.environment(), self.environment()

    def environment(self) -> Brake:
        return Brake(self.table, clock=self.clock, on_unavailable=lambda: self.unavailable.append(None))

    def freeze(self, scope: Scope, target: str | None) -> None:
        self.here.freeze(scope, target, who=OPERATORS.id, why="a leak")

    def down(self) -> None:
        self.table.failure = TableUnavailable("ReadTimeoutError")

    def up(self) -> None:
        self.table.failure = None


@pytest.fixture
def bench() -> Bench:
    return Bench()


def passes(brake: Brake, caller: Caller = ORDERS, credential: CredentialId = TENANT_A) -> bool:
    try:
        brake.check(caller, credential)
    except NotAuthorized:
        return False
    return True


def test_nothing_is_frozen_at_first(bench: Bench) -> None:
    assert passes(bench.here)


@each_scope
def test_a_freeze_holds_here_at_once_and_elsewhere_within_five_seconds(
    bench: Bench, scope: Scope, target: str | None
) -> None:
    assert passes(bench.here)
    assert passes(bench.elsewhere)
    bench.freeze(scope, target)
    assert not passes(bench.here)
    assert passes(bench.elsewhere)  # it looked a moment ago
    bench.clock.now += FRESH_SECONDS
    assert not passes(bench.elsewhere)
    assert FRESH_SECONDS <= 5


@each_scope
def test_a_thaw_holds_here_at_once_and_elsewhere_within_five_seconds(
    bench: Bench, scope: Scope, target: str | None
) -> None:
    bench.freeze(scope, target)
    assert not passes(bench.elsewhere)
    bench.here.thaw(scope, target)
    assert passes(bench.here)
    bench.clock.now += FRESH_SECONDS
    assert passes(bench.elsewhere)
    assert bench.table.partition("brake") == []


def test_an_environment_that_slept_looks_before_it_vends(bench: Bench) -> None:
    assert passes(bench.elsewhere)
    bench.freeze("everything", None)
    bench.clock.now += 86_400
    assert not passes(bench.elsewhere)


@pytest.mark.parametrize(
    ("scope", "target", "caller", "credential", "stopped"),
    [
        ("everything", None, REFUNDS, TENANT_B, True),
        ("caller", ORDERS.id, ORDERS, TENANT_B, True),
        ("caller", ORDERS.id, REFUNDS, TENANT_A, False),
        ("caller", ORDERS.id + "2", ORDERS, TENANT_A, False),
        ("credential", "sandbox/tenant-a", REFUNDS, TENANT_A, True),
        ("credential", "sandbox/tenant-a", ORDERS, TENANT_B, False),
        ("credential", "sandbox/tenant-a", ORDERS, CredentialId("production", "tenant-a"), False),
        ("credential", "sandbox/tenant-a", ORDERS, CredentialId("sandbox", "Tenant-A"), False),
    ],
)
def test_what_a_freeze_stops_and_what_not(
    bench: Bench, scope: Scope, target: str | None, caller: Caller, credential: CredentialId, stopped: bool
) -> None:
    bench.freeze(scope, target)
    assert passes(bench.elsewhere, caller, credential) is not stopped


def test_freezes_are_independent(bench: Bench) -> None:
    for scope, target in TARGETS:
        bench.freeze(scope, target)
    bench.here.thaw("everything", None)
    assert not passes(bench.here)
    bench.here.thaw("caller", ORDERS.id)
    assert not passes(bench.here)
    bench.here.thaw("credential", "sandbox/tenant-a")
    assert passes(bench.here)


def test_a_frozen_caller_is_told_what_a_stranger_is_told(bench: Bench) -> None:
    bench.freeze("credential", "sandbox/tenant-a")
    with pytest.raises(NotAuthorized) as frozen:
        bench.here.check(ORDERS, TENANT_A)
    denied = NotAuthorized("the policy does not allow it")
    assert (frozen.value.detail, frozen.value.args) == (denied.detail, denied.args)
    assert frozen.value.retry_after_seconds is None
    assert frozen.value.reason == "frozen: credential"  # for the log


def test_the_state_is_read_once_in_five_seconds(bench: Bench) -> None:
    for _ in range(50):
        passes(bench.elsewhere)
        bench.clock.now += 0.09
    assert bench.table.calls == ["query"]
    bench.clock.now += 1
    passes(bench.elsewhere)
    assert bench.table.calls == ["query", "query"]


def test_the_age_of_the_state_counts_from_before_the_read(bench: Bench) -> None:
    def slow(_: str) -> None:
        bench.clock.now += 0.25

    bench.table.before = slow
    assert passes(bench.elsewhere)
    bench.clock.now += FRESH_SECONDS - 0.25
    assert passes(bench.elsewhere)
    assert bench.table.calls == ["query", "query"]


def test_a_clock_that_is_set_back_does_not_make_the_state_younger(bench: Bench) -> None:
    assert passes(bench.elsewhere)
    bench.freeze("everything", None)
    bench.clock.now -= 3600
    assert not passes(bench.elsewhere)


def test_nothing_is_read_while_it_is_made(bench: Bench) -> None:
    bench.environment()
    assert bench.table.calls == []


def test_who_and_why_stand_in_the_table(bench: Bench) -> None:
    bench.freeze("caller", ORDERS.id)
    assert bench.table.partition("brake") == [
        {
            "pk": "brake",
            "sk": f"caller#{ORDERS.id}",
            "who": OPERATORS.id,
            "why": "a leak",
            "at": "2021-02-26T14:33:20Z",
        }
    ]


# The table is down


def test_without_a_state_the_call_passes_and_is_counted(bench: Bench) -> None:
    bench.down()
    assert passes(bench.elsewhere)
    assert len(bench.unavailable) == 1


def test_the_last_state_known_goes_on_holding(bench: Bench) -> None:
    bench.freeze("caller", ORDERS.id)
    assert not passes(bench.elsewhere)
    bench.down()
    bench.clock.now += 86_400
    assert not passes(bench.elsewhere)
    assert passes(bench.elsewhere, REFUNDS)
    assert bench.unavailable


def test_while_it_is_down_it_is_asked_once_a_second(bench: Bench) -> None:
    bench.down()
    for _ in range(10):
        passes(bench.elsewhere)
    assert bench.table.calls == ["query"]
    bench.clock.now += RETRY_SECONDS
    passes(bench.elsewhere)
    assert len(bench.unavailable) == 2


def test_once_it_is_back_a_freeze_holds_within_ten_seconds(bench: Bench) -> None:
    bench.down()
    assert passes(bench.elsewhere)
    bench.up()
    bench.freeze("everything", None)
    bench.clock.now += 10
    assert not passes(bench.elsewhere)


@pytest.mark.parametrize("operation", ["freeze", "thaw", "stops_operator"])
def test_an_operator_learns_that_the_brake_cannot_be_reached(bench: Bench, operation: str) -> None:
    bench.down()
    calls: dict[str, Any] = {
        "freeze": lambda: bench.freeze("everything", None),
        "thaw": lambda: bench.here.thaw("everything", None),
        "stops_operator": lambda: bench.here.stops_operator(OPERATORS),
    }
    with pytest.raises(BrakeUnavailable) as failure:
        calls[operation]()
    assert (failure.value.status, failure.value.code, failure.value.retryable) == (503, "brake_unavailable", True)
    assert len(bench.table.calls) == OPERATE_ATTEMPTS


def test_an_operators_freeze_outlasts_a_hiccup(bench: Bench) -> None:
    hiccups = [TableUnavailable("InternalServerError")] * (OPERATE_ATTEMPTS - 1)

    def hiccup(_: str) -> None:
        if hiccups:
            raise hiccups.pop()

    bench.table.before = hiccup
    bench.freeze("everything", None)
    assert not passes(bench.here)


def test_a_freeze_that_failed_does_not_end_what_was_known(bench: Bench) -> None:
    bench.freeze("credential", "sandbox/tenant-a")
    assert not passes(bench.here)
    bench.down()
    with pytest.raises(BrakeUnavailable):
        bench.here.thaw("credential", "sandbox/tenant-a")
    assert not passes(bench.here)


# For the refill, and for operators


def test_the_refill_stops_for_a_credential_and_for_everything_but_not_for_a_caller(bench: Bench) -> None:
    bench.freeze("caller", ORDERS.id)
    assert bench.here.stops(TENANT_A) is None
    bench.freeze("credential", "sandbox/tenant-a")
    assert bench.here.stops(TENANT_A) == "credential"
    assert bench.here.stops(TENANT_B) is None
    bench.freeze("everything", None)
    assert bench.here.stops(TENANT_A) == bench.here.stops(TENANT_B) == "everything"


def test_whether_an_operator_is_frozen_is_never_answered_from_memory(bench: Bench) -> None:
    assert not bench.elsewhere.stops_operator(OPERATORS)
    bench.freeze("caller", OPERATORS.id)
    assert bench.elsewhere.stops_operator(OPERATORS)
    bench.here.thaw("caller", OPERATORS.id)
    bench.freeze("everything", None)
    assert not bench.elsewhere.stops_operator(OPERATORS)
