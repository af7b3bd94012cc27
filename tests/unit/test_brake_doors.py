"""Budgets, the brake and shared tokens, as callers and operators meet them at both doors."""

import json
from typing import Any

import pytest

from tests.fakes import secret
from tests.machine import POLICY_DIR, Context, Machine, api_event
from vending.access.brake import FRESH_SECONDS
from vending.table import TableUnavailable

SINGLE = {"credential": "sandbox/tenant-a"}
ORDERS = "arn:aws:iam::123456789012:role/orders"
OPERATORS = "arn:aws:iam::123456789012:role/operators"
EVERYTHING = {"operate": "freeze", "scope": "everything", "why": "INC-7: a leak"}
CALLER = EVERYTHING | {"scope": "caller", "target": ORDERS}
CREDENTIAL = EVERYTHING | {"scope": "credential", "target": "sandbox/tenant-a"}
THAW = {"operate": "thaw"}
each_freeze = pytest.mark.parametrize("order", [EVERYTHING, CALLER, CREDENTIAL], ids=lambda order: order["scope"])


@pytest.fixture
def machine() -> Machine:
    return Machine(
        policy=(POLICY_DIR / "dev.cedar").read_text()
        + """
        @id("on-call") permit (principal == Caller::"alias/on-call", action == Action::"operate", resource);
        @id("few") @budget("3/minute") permit (
            principal == Caller::"alias/few", action in [Action::"vend", Action::"inspect"], resource in Environment::"sandbox"
        );
        """
    )


def brake_event(order: Any, role: str = "operators") -> dict[str, Any]:
    """An order at the HTTP door."""
    event = api_event(role=role, body=order if isinstance(order, str) else json.dumps(order))
    return event | {"resource": "/v1/brake", "pathParameters": None}


def frozen(machine: Machine) -> list[object]:
    return [item["sk"] for item in machine.table.partition("brake")]


# Operating


@each_freeze
def test_an_operator_freezes_and_thaws_by_the_api(machine: Machine, order: dict[str, str]) -> None:
    assert machine.api(api_event())["statusCode"] == 200
    response = machine.api(brake_event(order))
    assert response["statusCode"] == 200
    assert response["headers"]["Cache-Control"] == "no-store"
    body = json.loads(response["body"])
    assert (body["operate"], body["scope"], body["effectiveWithinSeconds"]) == ("freeze", order["scope"], 10)
    assert machine.api_refusal(api_event()).code == "not_authorized"
    assert machine.api(brake_event(order | THAW))["statusCode"] == 200
    assert machine.api(api_event())["statusCode"] == 200


@each_freeze
def test_an_operator_freezes_and_thaws_by_a_direct_invoke(machine: Machine, order: dict[str, str]) -> None:
    on_call = Context(alias="on-call")
    assert machine.invoke(order, on_call)["operate"] == "freeze"
    assert machine.api_refusal(api_event()).code == "not_authorized"
    assert machine.invoke(order | THAW | {"correlationId": "inc-7"}, on_call)["operate"] == "thaw"
    assert machine.audit[-1]["correlationId"] == "inc-7"
    assert machine.api(api_event())["statusCode"] == 200


@each_freeze
def test_each_freeze_and_thaw_leaves_who_and_why_in_the_audit(machine: Machine, order: dict[str, str]) -> None:
    for asked in (order, order | THAW):
        machine.api(brake_event(asked))
        (record,) = machine.audit
        assert (record["action"], record["decision"], record["outcome"]) == ("operate", "allow", "operated")
        assert record["caller"] == OPERATORS
        assert record["brake"] == asked
        assert record["policies"][0].startswith("operators-brake-")
        assert record.get("credential") == (order["target"] if order["scope"] == "credential" else None)
        machine.audit.clear()


@each_freeze
@pytest.mark.parametrize("role", ["orders", "stranger", "Operators"])
def test_who_has_no_permit_to_operate_changes_nothing_and_is_recorded(
    machine: Machine, order: dict[str, str], role: str
) -> None:
    refusal = machine.api_refusal(brake_event(order, role))
    assert (refusal.status, refusal.code) == (403, "not_authorized")
    assert machine.table.calls == []
    (record,) = machine.audit
    assert (record["decision"], record["outcome"], record["brake"]) == ("deny", "refused", order)


@pytest.mark.parametrize("alias", ["settlement-job", "live", "$LATEST", None])
def test_a_direct_caller_without_a_permit_operates_nothing(machine: Machine, alias: str | None) -> None:
    assert machine.invoke_refusal(EVERYTHING, Context(alias=alias)).error_type == "NotAuthorized"
    assert machine.table.calls == []


def test_a_refused_operator_is_told_no_more_than_a_refused_caller(machine: Machine) -> None:
    assert machine.api(brake_event(EVERYTHING, "stranger")) == machine.api(api_event(role="stranger"))


@pytest.mark.parametrize(
    "order",
    [
        {}, [], "x", "", EVERYTHING | {"more": 1}, EVERYTHING | {"credential": "sandbox/tenant-a"}, EVERYTHING | {"count": 1}, EVERYTHING | {"caller": OPERATORS},
        EVERYTHING | {"why": ""}, EVERYTHING | {"why": 'x"}\n{"event": "audit"}'}, EVERYTHING | {"why": "x" * 201}, EVERYTHING | {"target": "sandbox/tenant-a"},
        CREDENTIAL | {"target": "sandbox/*"}, CALLER | {"target": "orders"}, {"operate": "freeze", "scope": "everything"}, json.dumps(EVERYTHING) + " " * 10_000,
    ],
)  # fmt: skip
def test_an_order_that_is_wrong_is_invalid_and_changes_nothing(machine: Machine, order: Any) -> None:
    refusal = machine.api_refusal(brake_event(order))
    assert (refusal.status, refusal.code) == (400, "invalid_request")
    assert machine.table.calls == []
    assert "brake" not in machine.audit[-1]
    if isinstance(order, dict) and "operate" in order:
        assert machine.invoke_refusal(order, Context(alias="on-call")).code == "invalid_request"


def test_an_order_by_the_api_carries_no_correlation_id_in_its_body_nor_a_query(machine: Machine) -> None:
    assert machine.api_refusal(brake_event(EVERYTHING | {"correlationId": "x"})).code == "invalid_request"
    event = brake_event(EVERYTHING) | {"queryStringParameters": {"operate": "thaw"}}
    assert machine.api_refusal(event).code == "invalid_request"
    assert frozen(machine) == []


def test_a_why_in_any_language_arrives_as_it_was_written(machine: Machine) -> None:
    why = "🔥 漏洩 « Schlüssel »"
    assert machine.api(brake_event(EVERYTHING | {"why": why}))["statusCode"] == 200
    assert machine.audit[-1]["brake"]["why"] == why


def test_a_frozen_operator_thaws_nothing(machine: Machine) -> None:
    machine.invoke(CALLER | {"target": OPERATORS}, Context(alias="on-call"))
    for order in (CALLER | THAW | {"target": OPERATORS}, EVERYTHING):
        assert machine.api_refusal(brake_event(order)).code == "not_authorized"
    assert (machine.audit[-1]["decision"], machine.audit[-1]["outcome"]) == ("deny", "refused")
    assert frozen(machine) == [f"caller#{OPERATORS}"]


def test_without_a_table_an_operator_is_told_to_try_again(machine: Machine) -> None:
    machine.table.failure = TableUnavailable("ReadTimeoutError")
    refusal = machine.api_refusal(brake_event(EVERYTHING))
    assert (refusal.status, refusal.code, refusal.headers["Retry-After"]) == (503, "brake_unavailable", "1")
    assert (machine.audit[-1]["outcome"], machine.audit[-1]["error"]) == ("failed", "brake_unavailable")


# Records first where something is let loose


def test_without_an_audit_record_nothing_is_thawed(machine: Machine) -> None:
    machine.api(brake_event(CREDENTIAL))
    machine.audit_failure = OSError("full")
    assert machine.api_refusal(brake_event(CREDENTIAL | THAW)).code == "audit_unavailable"
    machine.audit_failure = None
    assert frozen(machine) == ["credential#sandbox/tenant-a"]


def test_without_an_audit_record_a_freeze_holds_nevertheless(machine: Machine) -> None:
    machine.audit_failure = OSError("full")
    assert machine.api_refusal(brake_event(CREDENTIAL)).code == "audit_unavailable"
    machine.audit_failure = None
    assert machine.api_refusal(api_event()).code == "not_authorized"


def test_a_thaw_that_fails_after_its_record_leaves_a_second_one(machine: Machine) -> None:
    machine.api(brake_event(EVERYTHING))
    machine.audit.clear()

    def no_delete(operation: str) -> None:
        if operation == "delete":
            raise TableUnavailable("ThrottlingException")

    machine.table.before = no_delete
    assert machine.api_refusal(brake_event(EVERYTHING | THAW)).code == "brake_unavailable"
    assert [record["outcome"] for record in machine.audit] == ["operated", "failed"]
    assert len({record["requestId"] for record in machine.audit}) == 1
    assert frozen(machine) == ["all"]


# What a frozen caller sees


@each_freeze
@pytest.mark.parametrize("route", ["token", "tokens"])
def test_frozen_looks_like_a_denial_to_the_byte_by_the_api(machine: Machine, order: dict[str, str], route: str) -> None:
    body = '{"count": 2}' if route == "tokens" else None
    denied = machine.api(api_event(route, role="stranger", body=body))
    machine.api(brake_event(order))
    assert machine.api(api_event(route, body=body)) == denied


@pytest.mark.parametrize("order", [EVERYTHING, CALLER | {"target": "alias/settlement-job"}, CREDENTIAL])
def test_frozen_looks_like_a_denial_to_the_letter_by_a_direct_invoke(machine: Machine, order: dict[str, str]) -> None:
    denied = machine.invoke_refusal(SINGLE, Context(alias="live"))
    machine.api(brake_event(order))
    assert machine.invoke_refusal(SINGLE) == denied


@each_freeze
def test_a_frozen_vend_reaches_nobody_and_is_recorded_as_refused(machine: Machine, order: dict[str, str]) -> None:
    machine.api(brake_event(order))
    machine.api_refusal(api_event())
    assert machine.aws.reads == []
    assert machine.imburse.requests == []
    record = machine.audit[-1]
    assert (record["decision"], record["outcome"], record["error"]) == ("deny", "refused", "not_authorized")
    assert (record["caller"], record["policies"]) == (ORDERS, ["orders-tenant-a"])


def test_an_inspection_is_frozen_too(machine: Machine) -> None:
    machine.api(brake_event(CREDENTIAL))
    assert machine.api_refusal(api_event("identity", role="operators")).code == "not_authorized"


def test_others_go_on(machine: Machine) -> None:
    machine.api(brake_event(CALLER))
    assert machine.invoke(SINGLE)["accessToken"]


def test_a_freeze_made_elsewhere_holds_within_ten_seconds(machine: Machine) -> None:
    machine.api(api_event())
    machine.table.put({"pk": "brake", "sk": "all", "who": "x", "why": "y", "at": "z"})
    machine.clock.now += FRESH_SECONDS
    assert machine.api_refusal(api_event()).code == "not_authorized"


def test_who_waited_for_imburse_does_not_leave_with_a_token_long_after_a_freeze(machine: Machine) -> None:
    def slow(request: Any) -> Any:
        machine.table.put({"pk": "brake", "sk": "credential#sandbox/tenant-a", "who": "x", "why": "y", "at": "z"})
        machine.clock.now += 8
        return machine.imburse.obey(request)

    machine.imburse.always = slow
    assert machine.api_refusal(api_event()).code == "not_authorized"
    assert len(machine.imburse.tokens) == 1
    assert (machine.audit[-1]["outcome"], machine.audit[-1].get("tokens")) == ("refused", None)


def test_vending_goes_on_without_a_table(machine: Machine) -> None:
    machine.table.failure = TableUnavailable("ReadTimeoutError")
    assert machine.api(api_event())["statusCode"] == 200
    assert machine.invoke(SINGLE, Context(alias="few"))["accessToken"]


def test_a_freeze_throws_away_the_pool(machine: Machine) -> None:
    for number in range(3):
        machine.table.put({"pk": "pool#sandbox/tenant-a", "sk": f"001614351800#{number:016x}", "token": "t"})
    assert json.loads(machine.api(brake_event(CREDENTIAL))["body"])["purged"] == 3
    assert machine.table.partition("pool#sandbox/tenant-a") == []


# Budgets


def test_over_budget_is_429_with_retry_after_by_the_api(machine: Machine) -> None:
    for _ in range(60):
        assert machine.api(api_event(role="refunds"))["statusCode"] == 200
    refusal = machine.api_refusal(api_event(role="refunds"))
    assert (refusal.status, refusal.code) == (429, "over_budget")
    assert 1 <= int(refusal.headers["Retry-After"]) <= 60
    assert (machine.audit[-1]["outcome"], machine.audit[-1]["policies"]) == ("refused", ["refunds-tenant-a"])
    machine.clock.now += int(refusal.headers["Retry-After"])
    assert machine.api(api_event(role="refunds"))["statusCode"] == 200


def test_over_budget_is_raised_with_retry_after_by_a_direct_invoke(machine: Machine) -> None:
    few = Context(alias="few")
    machine.invoke(SINGLE | {"count": 2}, few)
    refusal = machine.invoke_refusal(SINGLE | {"count": 2}, few)
    assert (refusal.status, refusal.error_type) == (429, "OverBudget")
    assert 1 <= refusal.document["retryAfter"] <= 60
    machine.invoke(SINGLE, few)


def test_what_is_over_budget_reaches_nobody(machine: Machine) -> None:
    assert machine.invoke_refusal(SINGLE | {"count": 4}, Context(alias="few")).code == "over_budget"
    assert machine.aws.reads == []
    assert machine.imburse.requests == []


def test_what_is_over_budget_is_a_refusal_and_no_failure_of_ours(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.invoke_refusal(SINGLE | {"count": 4}, Context(alias="few"))
    written = capsys.readouterr().out
    assert '"RequestsRefused"' in written
    assert '"TokensFailed"' not in written


def test_how_full_a_budget_is_is_counted_by_credential_also_when_it_refuses(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    few = Context(alias="few")
    machine.invoke(SINGLE | {"count": 2}, few)
    machine.invoke_refusal(SINGLE | {"count": 2}, few)
    machine.invoke(SINGLE)  # by a rule without a budget: what was noted before must not be told again
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"TokensVended"' in line]
    assert [line.get("BudgetUsedPercent") for line in lines] == [[66.7], [100.0], None]
    (metric,) = (m for m in lines[0]["_aws"]["CloudWatchMetrics"][0]["Metrics"] if m["Name"] == "BudgetUsedPercent")
    assert metric["Unit"] == "Percent"
    assert lines[1]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"], ["service", "credential"]]


def test_who_is_frozen_spends_no_budget(machine: Machine) -> None:
    machine.api(brake_event(EVERYTHING))
    machine.invoke_refusal(SINGLE, Context(alias="few"))
    machine.api(brake_event(EVERYTHING | THAW))
    assert len(machine.invoke(SINGLE | {"count": 3}, Context(alias="few"))["tokens"]) == 3


# Shared tokens


@pytest.fixture
def shared(machine: Machine) -> Machine:
    members = secret(reuse="shared")
    machine.imburse.accept(members)
    machine.aws.put("sandbox/tenant-a", members)
    return machine


def test_all_callers_get_the_same_token_and_each_hand_out_is_recorded(shared: Machine) -> None:
    answers = [json.loads(shared.api(api_event())["body"]), shared.invoke(SINGLE), shared.invoke(SINGLE)]
    assert len({answer["accessToken"] for answer in answers}) == len(shared.imburse.nonces) == 1
    assert [record["tokens"][0]["source"] for record in shared.audit] == ["shared"] * 3
    assert len({record["tokens"][0]["sha256"] for record in shared.audit}) == 1
    assert [record["caller"] for record in shared.audit] == [ORDERS, "alias/settlement-job", "alias/settlement-job"]


def test_a_batch_of_a_shared_credential_is_the_same_token_so_many_times(shared: Machine) -> None:
    answer = shared.invoke(SINGLE | {"count": 5})
    assert len(answer["tokens"]) == 5
    assert len(shared.imburse.nonces) == 1
    assert len(shared.audit[-1]["tokens"]) == 5


def test_a_frozen_credential_has_another_shared_token_afterwards(shared: Machine) -> None:
    before = shared.invoke(SINGLE)["accessToken"]
    assert json.loads(shared.api(brake_event(CREDENTIAL))["body"])["purged"] == 1
    shared.invoke_refusal(SINGLE)
    shared.api(brake_event(CREDENTIAL | THAW))
    assert shared.invoke(SINGLE)["accessToken"] != before


def test_a_shared_token_is_in_no_record_and_no_log(shared: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    token = shared.invoke(SINGLE)["accessToken"]
    shared.table.failure = TableUnavailable("ReadTimeoutError")
    shared.clock.now += FRESH_SECONDS
    shared.invoke(SINGLE)
    written = capsys.readouterr()
    assert token not in written.out + written.err + json.dumps(shared.audit)
