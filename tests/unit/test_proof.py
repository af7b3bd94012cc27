"""A caller who proves who they are, at the direct door: by an STS that really verifies what it is sent."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from imburse_auth.caller_proof import CallerProof
from tests.fake_sts import STS_URL, Principal
from tests.machine import ACCOUNT, POLICY_DIR, Context, Machine, api_event, handler_module
from vending.table import TableUnavailable

FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend"
ORDERS = f"arn:aws:iam::{ACCOUNT}:role/orders"
SINGLE = {"credential": "sandbox/tenant-a"}
BATCH = {"credential": "sandbox/tenant-a", "count": 3}
FREEZE = {"operate": "freeze", "scope": "credential", "target": "sandbox/tenant-a", "why": "a drill"}


@pytest.fixture
def machine() -> Machine:
    return Machine()


def prove(machine: Machine, who: Principal | str = "orders", *, seconds_ago: float = 0) -> dict[str, str]:
    principal = machine.sts.role(who) if isinstance(who, str) else who
    signed_at = machine.clock() - seconds_ago
    return CallerProof(FUNCTION, session=principal.session(), sts_url=STS_URL, clock=lambda: signed_at)()


# Who it is


def test_a_proven_caller_is_the_role_as_through_the_api(machine: Machine) -> None:
    proof = prove(machine)
    assert machine.invoke(SINGLE | {"proof": proof})["accessToken"] in machine.imburse.tokens
    assert machine.api(api_event())["statusCode"] == 200
    by_proof, by_api = machine.audit
    assert (by_proof["caller"], by_proof["policies"]) == (by_api["caller"], by_api["policies"])
    assert (by_proof["door"], by_proof["via"]) == ("invoke", "proof")
    assert by_proof["proof"] == hashlib.sha256(proof["signature"].encode()).hexdigest()
    assert by_proof["through"] == "alias/settlement-job"
    assert {"via", "proof", "through"}.isdisjoint(by_api)


def test_without_a_proof_the_alias_is_the_caller_and_nobody_asks_sts(machine: Machine) -> None:
    machine.invoke(SINGLE)
    assert machine.audit[0]["caller"] == "alias/settlement-job"
    assert {"via", "proof", "through"}.isdisjoint(machine.audit[0])
    assert not machine.sts.requests


def test_what_sts_is_sent_is_to_the_byte_what_botocore_would_have_sent(machine: Machine) -> None:
    who = machine.sts.role("orders")
    proof = prove(machine, who)
    machine.invoke(SINGLE | {"proof": proof})
    (sent,) = machine.sts.requests
    request = AWSRequest(
        "POST",
        f"{STS_URL}/",
        headers={
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "X-Imburse-Vending-Audience": FUNCTION,
            "X-Imburse-Vending-Nonce": proof["nonce"],
        },
        data=b"Action=GetCallerIdentity&Version=2011-06-15",
    )
    now = datetime.fromtimestamp(machine.clock(), UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=now):
        credentials = Credentials(who.access_key_id, who.secret_access_key, who.session_token)
        SigV4Auth(credentials, "sts", "eu-west-1").add_auth(request)
    assert (sent.method, sent.url, sent.body) == (request.method, request.url, request.body)
    expected = {name.lower(): value for name, value in request.headers.items()}
    assert {name: value for name, value in sent.headers.lower_items() if name in expected} == expected
    assert set(sent.headers) - {name.title() for name in expected} == {
        "Accept", "Accept-Encoding", "Connection", "Content-Length", "User-Agent",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arn", "account", "session", "caller"),
    [
        (f"arn:aws:iam::{ACCOUNT}:user/people/ann", ACCOUNT, False, f"arn:aws:iam::{ACCOUNT}:user/people/ann"),
        (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT, False, f"arn:aws:iam::{ACCOUNT}:root"),
        (f"arn:aws:sts::{ACCOUNT}:federated-user/ann", ACCOUNT, True, f"arn:aws:sts::{ACCOUNT}:federated-user/ann"),
        (
            "arn:aws:sts::210987654321:assumed-role/orders/s",
            "210987654321",
            True,
            "arn:aws:iam::210987654321:role/orders",
        ),
    ],
)
def test_whom_no_rule_names_is_refused_under_the_own_name_and_never_taken_for_the_alias(
    machine: Machine, arn: str, account: str, *, session: bool, caller: str
) -> None:
    who = machine.sts.principal(arn, account, session=session)
    assert machine.invoke_refusal(SINGLE | {"proof": prove(machine, who)}).code == "not_authorized"
    assert (machine.audit[0]["caller"], machine.audit[0]["decision"]) == (caller, "deny")


def test_another_accounts_role_is_in_its_own_account_for_the_policy() -> None:
    rule = 'permit (principal in Account::"210987654321", action, resource) when { context.via == "proof" };'
    machine = Machine(rule)
    stranger = machine.sts.role("orders", "210987654321")
    assert machine.invoke(SINGLE | {"proof": prove(machine, stranger)})["accessToken"]
    assert machine.invoke_refusal(SINGLE | {"proof": prove(machine)}).code == "not_authorized"


def test_the_policy_can_demand_a_proof() -> None:
    machine = Machine(f'permit (principal == Caller::"{ORDERS}", action, resource) when {{ context.via == "proof" }};')
    assert machine.api_refusal(api_event()).code == "not_authorized"
    assert machine.invoke(SINGLE | {"proof": prove(machine)})["accessToken"]


def test_in_production_a_role_does_not_get_around_the_endpoint_with_a_proof() -> None:
    policy = (POLICY_DIR / "production.cedar").read_text()
    policy += f'permit (principal in Account::"{ACCOUNT}", action == Action::"vend", resource);'
    machine = Machine(policy)
    machine.aws.put("production/tenant-a", machine.members)
    asked = {"credential": "production/tenant-a"}
    assert machine.invoke_refusal(asked | {"proof": prove(machine)}).code == "not_authorized"
    assert machine.audit[-1]["policies"] == ["production-through-an-endpoint-only"]
    assert machine.invoke(asked)["accessToken"]


@pytest.mark.parametrize("alias", [None, "$LATEST", "7"])
def test_a_proof_does_not_replace_the_alias_that_iam_guards(machine: Machine, alias: str | None) -> None:
    refusal = machine.invoke_refusal(SINGLE | {"proof": prove(machine)}, Context(alias=alias))
    assert (refusal.code, machine.sts.requests) == ("not_authorized", [])


def test_budget_and_brake_hold_for_the_role_behind_a_proof(machine: Machine) -> None:
    for _ in range(60):
        machine.invoke(SINGLE | {"proof": prove(machine, "refunds")})
    refunds = api_event(role="refunds")
    assert machine.api_refusal(refunds).code == "over_budget"  # one counter, whichever door
    assert machine.invoke(FREEZE | {"scope": "caller", "target": ORDERS, "proof": prove(machine, "operators")})
    assert machine.invoke_refusal(SINGLE | {"proof": prove(machine)}).code == "not_authorized"
    assert machine.table.items[("brake", f"caller#{ORDERS}")]["who"] == f"arn:aws:iam::{ACCOUNT}:role/operators"


def test_a_proof_anywhere_else_proves_nothing(machine: Machine) -> None:
    proof = prove(machine)
    body = json.dumps({"proof": proof})
    assert machine.api_refusal(api_event(role="stranger", body=body)).code == "invalid_request"
    context = Context()
    context.client_context = SimpleNamespace(custom={"proof": proof}, env={})  # type: ignore[attr-defined]
    machine.invoke(SINGLE, context)
    assert machine.audit[-1]["caller"] == "alias/settlement-job"
    assert not machine.sts.requests


def test_what_is_wrong_with_a_request_costs_no_call_to_sts(machine: Machine) -> None:
    assert machine.invoke_refusal({"credential": "..", "proof": prove(machine)}).code == "invalid_request"
    assert not machine.sts.requests


# Replays


@pytest.mark.parametrize(("asked", "role"), [(BATCH, "orders"), (FREEZE, "operators")])
def test_a_proof_is_good_for_one_batch_or_order_in_all_environments(asked: dict[str, Any], role: str) -> None:
    first = Machine()
    second = Machine(clock=first.clock, table=first.table)
    event = asked | {"proof": prove(first, role)}
    second.sts = first.sts
    second.vending._prover._transport = first.vending._prover._transport
    first.invoke(event)
    calls = len(first.imburse.requests)
    for machine in (first, second):
        assert machine.invoke_refusal(event).code == "not_authorized"
        assert machine.audit[-1]["proof"] == first.audit[0]["proof"]
    assert len(first.imburse.requests) == calls
    assert not second.imburse.requests


def test_of_two_replays_at_once_exactly_one_wins(machine: Machine) -> None:
    event = BATCH | {"proof": prove(machine)}
    barrier = threading.Barrier(2)

    def before(operation: str) -> None:
        if operation == "put_new":
            barrier.wait(5)

    machine.table.before = before

    module = handler_module("vend")

    def visit() -> str:
        try:
            return str(len(module.handler(event, Context())["tokens"]))
        except Exception as exc:  # noqa: BLE001 - as the runtime would
            return type(exc).__name__

    with mock.patch.object(module, "vending", machine.vending), ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(lambda _: visit(), range(2)))
    assert sorted(outcomes) == ["3", "NotAuthorized"]


def test_two_batches_of_one_second_are_no_replay(machine: Machine) -> None:
    who = machine.sts.role("orders")
    for _ in range(2):
        assert len(machine.invoke(BATCH | {"proof": prove(machine, who)})["tokens"]) == 3


def test_a_replayed_single_vend_passes_and_shows_in_the_audit_trail(machine: Machine) -> None:
    event = SINGLE | {"proof": prove(machine)}
    assert machine.invoke(event)["accessToken"] != machine.invoke(event)["accessToken"]
    assert len({record["proof"] for record in machine.audit}) == 1
    assert "put_new" not in machine.table.calls


@pytest.mark.parametrize(("asked", "role"), [(BATCH, "orders"), (FREEZE, "operators")])
def test_without_the_table_no_batch_and_no_order_passes_by_proof(
    machine: Machine, asked: dict[str, Any], role: str
) -> None:
    machine.table.failure = TableUnavailable("ProvisionedThroughputExceededException")
    refusal = machine.invoke_refusal(asked | {"proof": prove(machine, role)})
    assert (refusal.code, refusal.status, refusal.document["retryAfter"]) == ("proof_unavailable", 503, 1)
    assert machine.audit[-1]["outcome"] == "failed"
    assert not machine.imburse.requests
    assert machine.invoke(SINGLE | {"proof": prove(machine)})["accessToken"]
    assert len(machine.invoke(BATCH)["tokens"]) == 3  # without a proof nothing changes


def test_who_is_refused_leaves_nothing_in_the_table(machine: Machine) -> None:
    assert machine.invoke_refusal(BATCH | {"proof": prove(machine, "stranger")}).code == "not_authorized"
    assert not machine.table.partition("proof")


def test_a_spent_proof_is_remembered_for_longer_than_any_clock_of_ours_takes_it(machine: Machine) -> None:
    machine.invoke(BATCH | {"proof": prove(machine, seconds_ago=-299)})
    (item,) = machine.table.partition("proof")
    assert int(item["ttl"]) > machine.clock() + 299 + 300
