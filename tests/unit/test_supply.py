"""Vending with a pool, through both doors: what it has first, the rest exchanged, and never a failure of its own."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
import requests

from imburse_auth import AccessToken, CredentialId
from tests.fakes import BASE_URL, secret
from tests.machine import Machine, api_event
from vending.supply.pool import Pool, Pooled
from vending.table import TableUnavailable

TENANT_A = CredentialId("sandbox", "tenant-a")
SINGLE = {"credential": "sandbox/tenant-a"}


class Pooling(Machine):
    """A machine whose credential has a pool."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pool = Pool(self.table, clock=self.clock)
        self.keep(poolMin=5, poolMax=50)

    def keep(self, **changes: Any) -> None:
        self.members |= changes
        self.aws.put("sandbox/tenant-a", self.members)

    def fill(self, count: int, seconds: int = 1800, **changes: Any) -> list[str]:
        """Put so many tokens into the pool, the soonest to expire first; their values."""
        values = [f"pooled-{len(self.table.items)}-{n}" for n in range(count)]
        for number, value in enumerate(values):
            token = AccessToken(value, int(self.clock()) + seconds + number, "account-1", "tenant-a")
            pooled = Pooled(token, BASE_URL, self.members["publicKey"], f"c-{number}")
            self.pool.put(TENANT_A, Pooled(**{**pooled.__dict__, **changes}))
        # So deep that nothing runs low, but where a test says so.
        self.pool.set_level(TENANT_A, 1000)
        self.table.calls.clear()
        return values

    def left(self) -> int:
        return len(self.table.partition(f"pool#{TENANT_A}"))

    def batch(self, count: int, **members: Any) -> dict[str, Any]:
        response = self.api(api_event("tokens", body=json.dumps({"count": count, **members})))
        body: dict[str, Any] = json.loads(response["body"])
        return body


@pytest.fixture
def machine() -> Pooling:
    return Pooling()


def hang(release: threading.Event) -> None:
    release.wait(100)


def figures(out: str) -> dict[str, float]:
    """Every metric of what was written, added up."""
    totals: dict[str, float] = {}
    for line in out.splitlines():
        if line.startswith('{"_aws"'):
            members = json.loads(line)
            for metric in members["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                totals[metric["Name"]] = totals.get(metric["Name"], 0) + sum(members[metric["Name"]])
    return totals


# From the pool


@pytest.mark.parametrize("door", ["api", "invoke"])
def test_a_pooled_token_is_vended_without_a_call_to_imburse(
    machine: Pooling, door: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = machine.fill(3, seconds=900)
    body = machine.invoke(SINGLE) if door == "invoke" else json.loads(machine.api(api_event())["body"])
    assert body["accessToken"] in values
    assert (body["baseUrl"], body["credential"], body["expires"] - machine.clock() >= 900) == (
        BASE_URL,
        str(TENANT_A),
        True,
    )
    assert body["headers"] == {
        "Authorization": f"Bearer {body['accessToken']}",
        "x-account-id": "account-1",
        "x-tenant-id": "tenant-a",
    }
    assert machine.imburse.requests == []
    assert machine.left() == 2
    said = figures(capsys.readouterr().out)
    assert (said["PoolHit"], said["TokensVended"], said["ExchangeAttempts"]) == (1, 1, 0)
    assert "PoolMiss" not in said


def test_the_record_says_from_where_a_token_came(machine: Pooling) -> None:
    machine.fill(2)
    machine.batch(3)
    (record,) = machine.audit
    assert [token["source"] for token in record["tokens"]] == ["pool", "pool", "exchange"]
    assert {token["upstreamCorrelationId"] for token in record["tokens"][:2]} == {"c-0", "c-1"}


def test_vending_goes_on_from_the_pool_while_imburse_is_down_and_then_says_so(machine: Pooling) -> None:
    machine.fill(3)
    machine.imburse.always = lambda _: requests.ConnectionError("down")
    assert len({machine.invoke(SINGLE)["accessToken"] for _ in range(3)}) == 3
    refusal = machine.api_refusal(api_event())
    assert (refusal.status, refusal.code) == (503, "upstream_unavailable")
    assert int(refusal.headers["Retry-After"]) > 0


def test_a_pool_that_is_too_old_is_as_good_as_empty(machine: Pooling) -> None:
    machine.fill(3, seconds=250)
    machine.imburse.always = lambda _: requests.ConnectionError("down")
    assert machine.invoke_refusal(SINGLE).code == "upstream_unavailable"
    assert machine.invoke({**SINGLE, "minimumLifetimeSeconds": 200})["expiresIn"] >= 200


def test_an_empty_pool_falls_back_to_an_exchange(machine: Pooling, capsys: pytest.CaptureFixture[str]) -> None:
    assert machine.invoke(SINGLE)["accessToken"] in machine.imburse.tokens
    said = figures(capsys.readouterr().out)
    assert (said["PoolMiss"], said["TokensVended"]) == (1, 1)
    assert machine.audit[0]["tokens"][0]["source"] == "exchange"


def test_a_batch_takes_what_the_pool_has_and_exchanges_the_rest(
    machine: Pooling, capsys: pytest.CaptureFixture[str]
) -> None:
    values = machine.fill(30)
    body = machine.batch(50)
    got = [token["accessToken"] for token in body["tokens"]]
    assert len(set(got)) == 50
    assert set(values) < set(got)
    assert (len(machine.imburse.requests), machine.left()) == (20, 0)
    said = figures(capsys.readouterr().out)
    assert (said["PoolHit"], said["PoolMiss"]) == (30, 20)


def test_a_batch_with_imburse_down_gives_what_the_pool_has(machine: Pooling) -> None:
    machine.fill(3)
    machine.imburse.always = lambda _: requests.ConnectionError("down")
    body = machine.batch(5)
    assert len(body["tokens"]) == 3
    assert body["failures"] == [{"count": 2, "type": "urn:imburse-vending:error:upstream_unavailable"}]


def test_a_batch_of_what_is_left_to_one_gives_what_the_pool_has(machine: Pooling) -> None:
    machine.fill(4)
    machine.imburse.always = lambda _: requests.ConnectionError("down")
    assert len(machine.batch(5)["tokens"]) == 4


@pytest.mark.parametrize("seconds", [0, 1500])
def test_a_lifetime_may_be_asked_for_at_both_doors(machine: Pooling, seconds: int) -> None:
    values = machine.fill(4, seconds=1000)
    bodies = [
        machine.invoke({**SINGLE, "minimumLifetimeSeconds": seconds}),
        machine.invoke({**SINGLE, "count": 2, "minimumLifetimeSeconds": seconds})["tokens"][0],
        machine.batch(1, minimumLifetimeSeconds=seconds)["tokens"][0],
        json.loads(machine.api(api_event(body=json.dumps({"minimumLifetimeSeconds": seconds})))["body"]),
    ]
    assert [body["accessToken"] in values for body in bodies[:2]] == [seconds == 0] * 2
    assert machine.left() == (0 if seconds == 0 else 4)


@pytest.mark.parametrize("value", [-1, 1501, 1.5, "300", True, None])
def test_a_lifetime_out_of_range_is_refused_and_named(machine: Pooling, value: Any) -> None:
    for refusal in (
        machine.invoke_refusal({**SINGLE, "minimumLifetimeSeconds": value}),
        machine.api_refusal(api_event(body=json.dumps({"minimumLifetimeSeconds": value}))),
        machine.api_refusal(api_event("tokens", body=json.dumps({"count": 1, "minimumLifetimeSeconds": value}))),
    ):
        assert refusal.code == "invalid_request"
        assert refusal.document["detail"].startswith("minimumLifetimeSeconds: ")


def test_an_inspection_leaves_the_pool_alone(machine: Pooling) -> None:
    machine.fill(3)
    machine.api(api_event("identity", role="operators"))
    assert machine.left() == 3


def test_a_credential_without_a_pool_costs_no_call_for_one(machine: Pooling) -> None:
    machine.fill(3)
    machine.keep(poolMin=0, poolMax=0)
    machine.invoke(SINGLE)
    assert machine.left() == 3
    assert set(machine.table.calls) <= {"query"}, "the brake's"
    assert machine.lambda_.invoked == []


# Once


def test_a_token_that_this_environment_has_seen_is_not_vended_again(
    machine: Pooling, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fill(1)
    (item,) = machine.table.partition(f"pool#{TENANT_A}")
    first = machine.invoke(SINGLE)["accessToken"]
    machine.table.put(item)  # as by a backup that somebody restored
    assert machine.invoke(SINGLE)["accessToken"] != first
    assert figures(capsys.readouterr().out)["TokensWasted"] == 1


def test_no_pooled_token_leaves_without_a_record(machine: Pooling, capsys: pytest.CaptureFixture[str]) -> None:
    machine.fill(3)
    machine.audit_failure = OSError("full")
    assert machine.invoke_refusal(SINGLE).code == "audit_unavailable"
    assert machine.left() == 2, "deleted before it was to be handed out: wasted, never repeated"
    assert figures(capsys.readouterr().out)["TokensWasted"] == 1


def test_a_token_of_a_rotated_key_is_not_vended(machine: Pooling, capsys: pytest.CaptureFixture[str]) -> None:
    machine.fill(1, public_key="the-last-key")
    assert machine.invoke(SINGLE)["accessToken"] in machine.imburse.tokens
    assert figures(capsys.readouterr().out)["PoolMiss"] == 1


def test_a_denied_caller_takes_nothing_from_the_pool(machine: Pooling) -> None:
    machine.fill(1)
    assert machine.api_refusal(api_event(role="stranger")).code == "not_authorized"
    assert (machine.left(), machine.table.calls) == (1, [])


# Waking the refill


def test_a_miss_wakes_the_refill_once(machine: Pooling) -> None:
    for _ in range(5):
        machine.invoke(SINGLE)
    assert machine.lambda_.invoked == [{"credential": "sandbox/tenant-a"}]


def test_a_claim_that_leaves_the_pool_at_its_low_mark_wakes_the_refill(machine: Pooling) -> None:
    machine.fill(4)
    machine.pool.set_level(TENANT_A, 2)
    machine.invoke(SINGLE)
    assert machine.lambda_.invoked == []
    machine.clock.now += 1
    machine.invoke(SINGLE)
    assert machine.lambda_.invoked == [{"credential": "sandbox/tenant-a"}]


def test_claims_within_one_second_that_leave_the_pool_at_its_low_mark_wake_the_refill(machine: Pooling) -> None:
    machine.fill(10)
    machine.pool.set_level(TENANT_A, 4)
    woken = []
    for _ in range(6):
        machine.invoke(SINGLE)
        woken.append(len(machine.lambda_.invoked))
    assert woken == [0, 0, 0, 1, 1, 1]


def test_demand_is_counted_whether_the_pool_had_it_or_not(machine: Pooling) -> None:
    machine.fill(2)
    machine.batch(5)
    assert machine.pool.demand_per_minute(TENANT_A) == 5


def test_demand_within_a_second_is_written_down_together(machine: Pooling) -> None:
    machine.fill(10)
    for _ in range(5):
        machine.invoke(SINGLE)
    assert machine.table.calls.count("add") == 2
    machine.clock.now += 1
    machine.invoke(SINGLE)
    assert machine.pool.demand_per_minute(TENANT_A) == 6


@pytest.mark.parametrize("failure", [OSError("no"), RuntimeError("bug")])
def test_a_refill_that_cannot_be_woken_fails_no_vend(machine: Pooling, failure: Exception) -> None:
    machine.lambda_.failure = failure
    assert machine.invoke(SINGLE)["accessToken"] in machine.imburse.tokens


# The table in trouble


@pytest.mark.parametrize("failure", [TableUnavailable("ThrottlingException"), RuntimeError("bug"), KeyError("x")])
@pytest.mark.parametrize("operation", ["query", "take", "add", "lease", "all"])
def test_a_table_that_fails_never_fails_a_vend(
    machine: Pooling, operation: str, failure: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.invoke(SINGLE)  # so that the brake's state is known, and not yet what is in the pool
    values = machine.fill(20)
    capsys.readouterr()

    def fail(name: str) -> None:
        if operation in (name, "all"):
            raise failure

    machine.table.before = fail
    machine.clock.now += 1
    body = machine.invoke(SINGLE)
    pooled = operation in ("add", "lease")
    assert (body["accessToken"] in values) is pooled
    said = figures(capsys.readouterr().out)
    assert said.get("PoolUnavailable", 0) == (0 if pooled else 1)
    assert "PoolMiss" not in said
    assert len(machine.batch(3)["tokens"]) == 3


def test_a_table_that_hangs_is_waited_for_three_hundred_milliseconds(
    machine: Pooling, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fill(3)
    machine.invoke(SINGLE)
    capsys.readouterr()
    release = threading.Event()
    machine.table.before = lambda _: hang(release)
    started = time.monotonic()
    try:
        body = machine.invoke(SINGLE)
        took_seconds = time.monotonic() - started
    finally:
        release.set()
    assert body["accessToken"] in machine.imburse.tokens
    assert 0.25 < took_seconds < 30  # the table hangs for 100
    assert figures(capsys.readouterr().out)["PoolUnavailable"] == 1


def test_a_token_that_comes_too_late_is_wasted_and_never_handed_out(machine: Pooling) -> None:
    (value,) = machine.fill(1)
    release, taken = threading.Event(), threading.Event()
    take = machine.table.take

    def late(pk: str, sk: str) -> Any:
        release.wait(20)
        try:
            return take(pk, sk)
        finally:
            taken.set()

    machine.table.take = late  # type: ignore[method-assign]
    first = machine.invoke(SINGLE)
    release.set()
    assert taken.wait(20)
    others = [machine.invoke(SINGLE) for _ in range(3)]
    assert value not in [body["accessToken"] for body in (first, *others)]


def test_a_claim_that_waits_for_a_thread_is_called_off(machine: Pooling) -> None:
    machine.fill(1)
    release = threading.Event()
    hanging = [machine.vending._supply._threads.submit(release.wait, 20) for _ in range(8)]
    try:
        assert machine.invoke(SINGLE)["accessToken"] in machine.imburse.tokens
    finally:
        release.set()
    for call in hanging:
        call.result(20)
    machine.vending._supply._threads.submit(lambda: None).result(20)
    assert machine.left() == 1


def test_a_batch_from_a_slow_but_working_table_is_waited_for(machine: Pooling) -> None:
    machine.fill(40)
    machine.vending._supply._patience_seconds = 0.1
    gate = threading.Semaphore(1)

    def slow(operation: str) -> None:
        if operation == "take":
            with gate:
                threading.Event().wait(0.005)

    machine.table.before = slow
    machine.batch(40)
    assert machine.imburse.requests == []


# Sharing


@pytest.fixture
def sharing(machine: Pooling) -> Pooling:
    machine.keep(reuse="shared", poolMin=0, poolMax=0)
    return machine


def test_a_shared_token_serves_everybody_and_each_hand_out_is_recorded(sharing: Pooling) -> None:
    values = [sharing.invoke(SINGLE)["accessToken"], *(t["accessToken"] for t in sharing.batch(3)["tokens"])]
    assert len(set(values)) == 1
    assert len(sharing.imburse.requests) == 1
    assert [token["source"] for record in sharing.audit for token in record["tokens"]] == ["shared"] * 4


def test_a_shared_credential_never_touches_a_pool(sharing: Pooling) -> None:
    sharing.keep(poolMax=10)
    sharing.fill(2)
    sharing.invoke(SINGLE)
    assert sharing.left() == 2


# The brake and the budgets, where they meet the pool


def test_a_frozen_credential_gives_nothing_of_its_pool(machine: Pooling) -> None:
    machine.fill(3)
    machine.table.put({"pk": "brake", "sk": "credential#sandbox/tenant-a", "who": "w", "why": "y", "at": "a"})
    assert machine.invoke_refusal(SINGLE).code == "not_authorized"
    assert machine.left() == 3
    assert machine.audit[0]["outcome"] == "refused"


def test_a_freeze_throws_the_pool_away(machine: Pooling) -> None:
    machine.fill(3)
    order = {"operate": "freeze", "scope": "credential", "target": "sandbox/tenant-a", "why": "a leak"}
    event = api_event(role="operators", body=json.dumps(order)) | {"resource": "/v1/brake", "pathParameters": None}
    assert machine.api(event)["statusCode"] == 200
    assert machine.left() == 0
    assert machine.audit[0]["brake"] == order
    assert machine.audit[0]["outcome"] == "operated"
    assert machine.invoke_refusal(SINGLE).code == "not_authorized"


def test_a_freeze_during_a_vend_keeps_its_token_in(machine: Pooling) -> None:
    def freeze(request: requests.PreparedRequest) -> Any:
        machine.table.put({"pk": "brake", "sk": "all", "who": "w", "why": "y", "at": "a"})
        machine.clock.now += 6
        return machine.imburse.obey(request)

    machine.imburse.always = freeze
    assert machine.invoke_refusal(SINGLE).code == "not_authorized"
    (record,) = machine.audit
    assert (record["decision"], record["outcome"], record.get("tokens")) == ("deny", "refused", None)


def test_a_secret_is_in_no_item_but_the_token_in_its_own(machine: Pooling) -> None:
    machine.fill(3)
    machine.batch(5)
    machine.keep(**secret())
    everything = json.dumps(list(machine.table.items.values()))
    assert machine.members["privateKey"] not in everything
    assert not [token for token in machine.imburse.tokens if token in everything]
