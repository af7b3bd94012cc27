"""What vends use of AWS, counted: the whole machine runs for five minutes of a clock of our own, on dynalite and moto.

As many environments as the rate wants vend in turn, the refill runs each minute and whenever it is woken, and hooks in botocore
see every call. So what is read each second, each five seconds or each five minutes is in it as often as it would be.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import requests

from imburse_auth.aws import Aws
from imburse_auth.credential import CredentialId
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from imburse_auth.secrets import TTL_SECONDS, SecretStore, secrets_client
from tests import dynalite_server
from tests.bench.cost_meter import Meter, header_bytes
from tests.bench.cost_usage import LOG_EVENT_BYTES, combined
from tests.fakes import Clock, FakeImburse, FakeLambda, secret
from tests.machine import ENVIRON, POLICY_DIR, Context, Machine, api_event
from tests.patience import patient
from vending.access.policy import Policy
from vending.filling import Filling
from vending.record.audit import AuditTrail
from vending.record.log import make_logger
from vending.record.metrics import VendingMetrics
from vending.service import Vending
from vending.supply.backoff import Backoff
from vending.supply.pool import DEMAND_MINUTES, Pool
from vending.supply.refill import Refill
from vending.supply.waker import Waker
from vending.table import Table, dynamodb_client

Mode = Literal["in line", "pool", "shared"]
Door = Literal["direct", "API"]
MODES: Mapping[Mode, Mapping[str, Any]] = {
    "in line": {},
    "pool": {"poolMin": 10, "poolMax": 10_000},
    "shared": {"reuse": "shared"},
}

CREDENTIAL = CredentialId("sandbox", "tenant-a")
MINUTE_SECONDS = 60
WINDOW_SECONDS = TTL_SECONDS  # the longest that anything is kept by an environment
PATIENT_SECONDS = 60.0  # nobody counts here how often a busy machine makes the table late
_numbers = itertools.count()
_HOST = r"http://127\.0\.0\.1:\d+"


@dataclass(frozen=True)
class Load:
    """How many vends a second there are, by how many environments, of tokens of so many characters."""

    vends_per_second: float
    environments: int
    token_characters: int

    @property
    def vends(self) -> int:
        """Within the window."""
        return max(1, round(self.vends_per_second * WINDOW_SECONDS))


@dataclass(frozen=True)
class Counted:
    """What the window's vends used together and what its runs of the refill did; `metrics` are the different ones that they wrote."""

    load: Load
    vends: Mapping[str, float]
    refills: Mapping[str, float]
    refill_runs: int
    metrics: frozenset[tuple[str, ...]]

    def per_vend(self) -> dict[str, float]:
        """What a vend used, without the refill's share."""
        return combined([(1 / self.load.vends, self.vends)])

    def refill_per_vend(self) -> dict[str, float]:
        """The refill's share."""
        return combined([(1 / self.load.vends, self.refills)])


class Function:
    """What a Lambda function has of its own: its meter, its clients, its way to Imburse, and its log."""

    def __init__(self, members: Mapping[str, Any], load: Load, clock: Clock, table: str) -> None:
        self.meter, self.said, self.clock = Meter(), io.StringIO(), clock
        self._characters = load.token_characters
        self.imburse = FakeImburse(clock)
        self.imburse.accept(members)
        self.imburse.always = self._exchange
        aws = Aws()
        self.secrets = self.meter.watch(secrets_client(aws))
        self.table = Table(self.meter.watch(dynamodb_client(aws)), table)

    def _exchange(self, request: requests.PreparedRequest) -> tuple[int, Mapping[str, str], bytes]:
        status, _, body = self.imburse.obey(request)
        answer = json.loads(body)
        answer["accessToken"] = answer["accessToken"].ljust(self._characters, "x")
        answered = self.imburse.answer(answer, status)
        line = len(f"{request.method} {request.path_url} HTTP/1.1\r\n")
        self.meter.add("exchange", 1)
        self.meter.add("exchange sent", line + header_bytes(request.headers))
        self.meter.add("exchange received", header_bytes(answered[1]) + len(answered[2]))
        return answered

    def forget(self) -> None:
        """Begin anew."""
        self.meter.usage.clear()
        self.said.truncate(self.said.seek(0))


class World:
    """Everything that a mode's vends meet: one table, one secret, one Imburse, and one clock for all."""

    def __init__(self, mode: Mode, load: Load, server: dynalite_server.Dynalite) -> None:
        self.clock, self.lambda_, self.refill_runs = Clock(), FakeLambda(), 0
        members, table = secret(**MODES[mode]), server.new_table()
        self.vend, self.refill = (Function(members, load, self.clock, table) for _ in range(2))
        self.vend.secrets.create_secret(Name=CREDENTIAL.secret_name, SecretString=json.dumps(members))
        self.pool = Pool(self.refill.table, clock=self.clock)
        with redirect_stdout(self.vend.said):
            self.environments = [self._environment() for _ in range(load.environments)]
        with redirect_stdout(self.refill.said):
            self.filling = self._filling()

    def run_refill(self, event: Mapping[str, str]) -> int:
        """One run of the refill function. Answers how many tokens it added to ours."""
        self.refill_runs += 1
        deadline = Deadline.after(PATIENT_SECONDS)
        with redirect_stdout(self.refill.said):
            ran = self.filling.run(dict(event), request_id=Context.aws_request_id, deadline=deadline)
        return int(ran["pools"][str(CREDENTIAL)].get("added", 0))

    def wake(self) -> None:
        """The runs that vends asked for."""
        while self.lambda_.invoked:
            self.vend.meter.add("call lambda.Invoke", 1)
            self.run_refill(self.lambda_.invoked.pop(0))

    def _environment(self) -> Machine:
        vend, machine = self.vend, Machine()
        vending = Vending(
            service="vend",
            policy=Policy.load(POLICY_DIR / "dev.cedar"),
            secrets=SecretStore(vend.secrets, monotonic=self.clock),
            transport=vend.imburse.transport(),
            hosts=Hosts.parse(ENVIRON["IMBURSE_HOSTS"]),
            audit=AuditTrail(),
            # Powertools keeps one handler a name, bound to what standard output was at the time.
            logger=make_logger(f"vend-{next(_numbers)}"),
            table=vend.table,
            waker=Waker(vend.table, self.lambda_, ENVIRON["REFILL_FUNCTION"], clock=self.clock),  # type: ignore[arg-type]
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        machine.vending = vending
        return machine

    def _filling(self) -> Filling:
        own = self.refill
        refill = Refill(
            secrets=SecretStore(own.secrets, monotonic=self.clock),
            exchange=Exchange(own.imburse.transport(), clock=self.clock, sleep=self.clock.sleep),
            hosts=Hosts.parse(ENVIRON["IMBURSE_HOSTS"]),
            pool=self.pool,
            table=own.table,
            backoff=Backoff(own.table, clock=self.clock),
            clock=self.clock,
        )
        logger, metrics = make_logger(f"refill-{next(_numbers)}"), VendingMetrics("refill")
        return Filling(refill=refill, secrets_manager=own.secrets, metrics=metrics, logger=logger)


@contextmanager
def counting() -> Iterator[Callable[[Mode, Door, Load], Counted]]:
    """Gives what counts; ends with the servers that it counts on."""
    with ExitStack() as stack:
        server = stack.enter_context(dynalite_server.dynalite())
        stack.enter_context(mock.patch.dict(os.environ, {**ENVIRON, "AWS_ENDPOINT_URL_DYNAMODB": server.url}))
        yield lambda mode, door, load: _count(mode, door, load, server)


def _count(mode: Mode, door: Door, load: Load, server: dynalite_server.Dynalite) -> Counted:
    from moto import mock_aws  # only now: the arithmetic and its tests do without

    with mock_aws(config={"core": {"passthrough": {"urls": [_HOST]}}}):
        with patient(PATIENT_SECONDS):
            world = World(mode, load, server)
        clock = world.clock

        def vend(number: int) -> None:
            machine = world.environments[number % load.environments]
            with redirect_stdout(world.vend.said):
                if door == "API":
                    assert machine.api(api_event(), Context(alias="live"))["statusCode"] == 200
                else:
                    machine.invoke({"credential": str(CREDENTIAL)}, Context())
            world.wake()

        clock.now += -clock.now % MINUTE_SECONDS  # the window begins and ends with a run of the refill
        if mode == "pool":  # as it is after some minutes of such a demand
            for _ in range(DEMAND_MINUTES):
                world.pool.count_demand(CREDENTIAL, max(1, round(load.vends_per_second * MINUTE_SECONDS)))
                clock.now += MINUTE_SECONDS
            while world.run_refill({}):
                pass
        for number in range(load.environments):
            vend(number)
        world.vend.forget()
        world.refill.forget()
        world.refill_runs, began = 0, clock.now
        for number in range(load.vends):
            now = began + (number + 1) / load.vends_per_second
            while mode == "pool" and clock.now // MINUTE_SECONDS < now // MINUTE_SECONDS:
                clock.now = (clock.now // MINUTE_SECONDS + 1) * MINUTE_SECONDS
                world.run_refill({})
            clock.now = now
            vend(number)
    sizes, metrics = zip(*(_written(function.said.getvalue()) for function in (world.vend, world.refill)), strict=True)
    return Counted(
        load,
        {**world.vend.meter.usage, **sizes[0]},
        {**world.refill.meter.usage, **sizes[1]},
        world.refill_runs,
        metrics[0] | metrics[1],
    )


def _written(text: str) -> tuple[dict[str, float], frozenset[tuple[str, ...]]]:
    """The bytes of each kind of line, and the names of the metrics with their dimensions."""
    sizes: dict[str, float] = {}
    metrics = set[tuple[str, ...]]()
    for line in text.splitlines():
        members = json.loads(line)
        embedded = members.get("_aws", {}).get("CloudWatchMetrics", ())
        kind = "log metrics" if embedded else "log audit" if members.get("event") == "audit" else "log log"
        sizes[kind] = sizes.get(kind, 0) + len(line.encode()) + LOG_EVENT_BYTES
        for directive in embedded:
            for names in directive["Dimensions"]:
                values = [f"{name}={members[name]}" for name in sorted(names)]
                metrics |= {(metric["Name"], *values) for metric in directive["Metrics"]}
    return sizes, frozenset(metrics)
