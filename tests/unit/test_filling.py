"""The refill function as Lambda runs it: which pools it fills, what it says of them, and the round with the doors."""

from __future__ import annotations

import itertools
import json
from typing import Any
from unittest import mock

import pytest
import requests

from imburse_auth import CredentialId
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.secrets import SecretStore
from tests.fakes import aws_error, secret
from tests.machine import ENVIRON, Context, Machine, handler_module
from tests.stack import ROOT
from vending.access.brake import Brake
from vending.filling import Filling
from vending.record.log import make_logger
from vending.record.metrics import VendingMetrics
from vending.supply.backoff import Backoff
from vending.supply.pool import Pool
from vending.supply.refill import EXCHANGES_PER_RUN, Refill
from vending.table import TableUnavailable

_numbers = itertools.count()
TENANT_A = CredentialId("sandbox", "tenant-a")
SINGLE = {"credential": "sandbox/tenant-a"}


class FakeListing:
    """Secrets Manager's listing, two names a page."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.failure: Exception | None = None

    def get_paginator(self, operation: str) -> FakeListing:
        assert operation == "list_secrets"
        if self.failure is not None:
            raise self.failure
        return self

    def paginate(self, *, Filters: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: N803 - boto3's names
        assert Filters == [{"Key": "name", "Values": ["imburse/"]}]
        names = list(self.machine.aws.secrets)
        return [{"SecretList": [{"Name": name} for name in page]} for page in (names[:2], names[2:])]


class Bench:
    """The machine with its doors, and the refill function beside it on the same table."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.listing = FakeListing(self.machine)
        self.order: list[CredentialId] = []
        self.keep(poolMin=5, poolMax=50)
        machine, clock = self.machine, self.machine.clock
        brake = Brake(machine.table, clock=clock)
        self.pool = Pool(machine.table, clock=clock)
        self.filling = Filling(
            refill=Refill(
                secrets=SecretStore(machine.aws, monotonic=clock),  # type: ignore[arg-type]
                exchange=Exchange(machine.imburse.transport(), clock=clock, sleep=lambda _: None),
                hosts=Hosts.parse(ENVIRON["IMBURSE_HOSTS"]),
                pool=self.pool,
                table=machine.table,
                backoff=Backoff(machine.table, clock=clock),
                frozen=lambda credential: brake.stops(credential) is not None,
                clock=clock,
            ),
            secrets_manager=self.listing,  # type: ignore[arg-type]
            metrics=VendingMetrics("refill"),
            logger=make_logger(f"refill-{next(_numbers)}"),
            shuffle=self.order.extend,
        )

    def keep(self, name: str = "sandbox/tenant-a", **changes: Any) -> None:
        members = self.machine.members | changes if name == "sandbox/tenant-a" else secret(**changes)
        self.machine.imburse.accept(members)
        self.machine.aws.put(name, members)

    def run(self, event: object) -> dict[str, Any]:
        module = handler_module("refill")
        with mock.patch.object(module, "filling", self.filling):
            pools: dict[str, Any] = module.handler(event, Context(remaining_ms=60_000))["pools"]
        return pools


@pytest.fixture
def bench() -> Bench:
    return Bench()


def metrics(out: str, credential: str = "sandbox/tenant-a") -> dict[str, float]:
    found: dict[str, float] = {}
    for line in (json.loads(line) for line in out.splitlines() if line.startswith('{"_aws"')):
        assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"], ["service", "credential"]]
        assert line["service"] == "refill"
        if line["credential"] == credential:
            found |= {
                metric["Name"]: line[metric["Name"]][0] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
            }
    return found


def test_the_schedule_fills_every_pool_that_is_asked_for(bench: Bench) -> None:
    bench.keep("sandbox/tenant-b", poolMin=2, poolMax=2)
    bench.keep("sandbox/tenant-c")
    bench.machine.aws.put("not a credential", "{}")
    pools = bench.run(json.loads((ROOT / "events/refill_all.json").read_text("utf-8")))
    assert {name: pool["depth"] for name, pool in pools.items()} == {"sandbox/tenant-a": 5, "sandbox/tenant-b": 2}


def test_a_wake_fills_the_pool_that_it_names(bench: Bench) -> None:
    bench.keep("sandbox/tenant-b", poolMin=2, poolMax=2)
    event = json.loads((ROOT / "events/refill_woken.json").read_text("utf-8"))
    assert list(bench.run(event)) == ["sandbox/tenant-a"]


@pytest.mark.parametrize(
    "event", [None, [], {"credential": None}, {"credential": "../x"}, {"credential": "sandbox/tenant-a", "x": 1}]
)
def test_another_event_is_a_bug_and_raises(bench: Bench, event: Any) -> None:
    with pytest.raises(ValueError, match=r"^(event|credential)"):
        bench.run(event)


def test_secrets_that_cannot_be_listed_raise(bench: Bench) -> None:
    bench.listing.failure = aws_error("AccessDeniedException")
    with pytest.raises(Exception, match="AccessDenied"):
        bench.run({})


def test_one_pool_in_trouble_does_not_keep_the_others_from_being_filled(bench: Bench) -> None:
    bench.keep("sandbox/tenant-b", poolMin=2, poolMax=2)
    bench.machine.imburse.keys.pop(bench.machine.members["publicKey"])
    pools = bench.run({})
    assert pools["sandbox/tenant-a"]["code"] == "upstream_rejected"
    assert pools["sandbox/tenant-b"]["depth"] == 2


def test_the_order_is_drawn_by_lot(bench: Bench) -> None:
    bench.keep("sandbox/tenant-b", poolMin=2, poolMax=2)
    bench.run({})
    assert len(bench.order) == 2


def test_a_run_is_told_in_figures(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run({})
    assert metrics(capsys.readouterr().out) == {"PoolDepth": 5, "PoolTarget": 5, "TokensPooled": 5, "TokensWasted": 0}
    bench.machine.clock.now += 1801
    bench.run({})
    assert metrics(capsys.readouterr().out)["TokensWasted"] == 5


def test_a_failure_is_counted_each_minute_until_it_is_over(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.machine.imburse.always = lambda _: requests.ConnectionError("down")
    for _ in range(3):
        bench.run({})
        said = metrics(capsys.readouterr().out)
        assert (said["RefillFailed"], said["PoolDepth"]) == (1, 0)
    bench.machine.imburse.always = None
    bench.machine.clock.now += 60
    bench.run({})
    assert "RefillFailed" not in metrics(capsys.readouterr().out)


def test_a_table_that_is_down_is_counted_and_raises_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.machine.table.failure = TableUnavailable("slow")
    assert bench.run({})["sandbox/tenant-a"]["code"] == "table_unavailable"
    said = metrics(capsys.readouterr().out)
    assert (said["RefillFailed"], said["PoolUnavailable"]) == (1, 1)


def test_a_freeze_empties_the_pool_and_keeps_it_empty(bench: Bench) -> None:
    bench.run({})
    bench.machine.table.put({"pk": "brake", "sk": "all", "who": "w", "why": "y", "at": "a"})
    bench.machine.clock.now += 6
    assert bench.run({})["sandbox/tenant-a"] == {"state": "frozen", "depth": 0, "target": 0, "added": 0, "wasted": 5}
    assert bench.machine.table.partition(f"pool#{TENANT_A}") == []


def test_no_secret_is_in_any_output_or_item_but_a_tokens_own(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.dumps(bench.run({}))
    bench.machine.imburse.always = lambda r: bench.machine.imburse.refuse(401, str(r.headers["Authorization"]))
    bench.pool.purge(TENANT_A)
    said += json.dumps(bench.run({})) + "".join(capsys.readouterr())
    signatures = [str(r.headers["Authorization"]).rsplit(":", 1)[-1] for r in bench.machine.imburse.requests]
    items = json.dumps(list(bench.machine.table.items.values()))
    for value in (bench.machine.members["privateKey"], *signatures):
        assert value not in said + items
    assert not [token for token in bench.machine.imburse.tokens if token in said]


# The round: doors, table, refill


def test_a_pool_that_runs_low_is_filled_by_the_wake_of_who_claimed(bench: Bench) -> None:
    machine = bench.machine
    machine.invoke(SINGLE)
    (woken,) = machine.lambda_.invoked
    bench.run(woken)
    asked = len(machine.imburse.requests)
    for _ in range(5):
        machine.invoke(SINGLE)
    assert len(machine.imburse.requests) == asked
    assert [r["tokens"][0]["source"] for r in machine.audit] == ["exchange"] + ["pool"] * 5


def test_vending_outlives_imburse_and_the_pool_comes_back_gently(bench: Bench) -> None:
    machine = bench.machine
    bench.run({})
    machine.imburse.always = lambda _: requests.ConnectionError("down")
    got = {machine.invoke(SINGLE)["accessToken"] for _ in range(5)}
    assert len(got) == 5
    assert machine.invoke_refusal(SINGLE).code == "upstream_unavailable"
    bench.run({})
    machine.clock.now += 61
    machine.imburse.always = None
    asked = len(machine.imburse.requests)
    assert bench.run({})["sandbox/tenant-a"]["state"] == "filled"
    assert len(machine.imburse.requests) - asked <= EXCHANGES_PER_RUN
    assert machine.invoke(SINGLE)["accessToken"] not in got


def test_a_rotated_key_is_followed_through_the_pool(bench: Bench) -> None:
    machine = bench.machine
    bench.run({})
    machine.imburse.keys.clear()
    machine.members = secret(poolMin=5, poolMax=50)
    bench.keep()
    machine.clock.now += 301
    bench.run({})
    machine.invoke(SINGLE)
    assert machine.audit[-1]["tokens"][0]["source"] == "pool"
    assert machine.imburse.tokens[machine.invoke(SINGLE)["accessToken"]] == machine.members["publicKey"]
