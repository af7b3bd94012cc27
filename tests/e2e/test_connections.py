"""Connections are kept: counted on the wire, by a relay that stands between the machine and those whom it asks."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from imburse_auth.api_key import ApiKey
from imburse_auth.aws import Aws
from imburse_auth.credential import CredentialId
from imburse_auth.errors import VendingError
from imburse_auth.exchange import EXCHANGE_PATH
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore, secrets_client
from imburse_auth.transport import Transport
from local.imburse import Fault, Imburse, ImburseKey
from local.serving import bind, in_background, serving
from tests.dynalite_server import Dynalite, client
from tests.fake_table import FakeTable
from tests.fakes import secret
from tests.machine import ENVIRON, Context, handler_module
from tests.patience import patient
from tests.pool_racers import pooled
from vending.service import Vending
from vending.supply.pool import Pool
from vending.supply.waker import Waker, lambda_client
from vending.table import Table, dynamodb_client

VENDS = 40
CREDENTIAL = CredentialId("sandbox", "tenant-a")
EVENT = {"credential": str(CREDENTIAL)}
REFILL = ENVIRON["REFILL_FUNCTION"]


@dataclass
class Relay:
    """What stands at `url` in a server's stead, and how many connections it took so far."""

    url: str
    connections: int = 0


def relayed(url: str) -> AbstractContextManager[Relay]:
    """A relay to the server at that URL."""
    return in_background(_relay(url))


@asynccontextmanager
async def _relay(url: str) -> AsyncIterator[Relay]:
    target = urlsplit(url)
    relay = Relay("")
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            try:
                while piece := await reader.read(65536):
                    writer.write(piece)
                    await writer.drain()
            finally:
                writer.close()
                await writer.wait_closed()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay.connections += 1
        there, back = await asyncio.open_connection(target.hostname, target.port)
        pumps.update({asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))})

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    relay.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield relay
    finally:
        server.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@asynccontextmanager
async def aws(members: dict[str, Any]) -> AsyncIterator[str]:
    """A Secrets Manager that holds one secret, and a Lambda that takes any event."""

    async def get_secret_value(_: web.Request) -> web.Response:
        return web.json_response({"SecretString": json.dumps(members)}, content_type="application/x-amz-json-1.1")

    async def invoke(_: web.Request) -> web.Response:
        return web.Response(status=202)

    app = web.Application()
    app.add_routes([web.post("/", get_secret_value), web.post("/2015-03-31/functions/{name}/invocations", invoke)])
    async with serving(app, bind(0)) as url:
        yield url


@pytest.fixture
def members() -> dict[str, Any]:
    return secret()


@pytest.fixture
def imburse(members: dict[str, Any]) -> Imburse:
    return Imburse([ImburseKey.from_json(members)])


@dataclass
class Wired:
    """The direct door of a machine with its own clients, and the relays on all its wires."""

    imburse: Relay
    table: Relay
    aws: Relay

    def environ(self, table: str) -> dict[str, str]:
        return {
            **ENVIRON,
            "IMBURSE_HOSTS": f"sandbox={self.imburse.url}",
            "VENDING_TABLE": table,
            "AWS_ENDPOINT_URL": self.aws.url,
            "AWS_ENDPOINT_URL_DYNAMODB": self.table.url,
        }


@pytest.fixture
def wired(members: dict[str, Any], imburse: Imburse, dynalite: Dynalite) -> Iterator[Wired]:
    with (
        in_background(serving(imburse.app(), bind(0))) as imburse_url,
        in_background(aws(members)) as aws_url,
        relayed(imburse_url) as to_imburse,
        relayed(dynalite.url) as to_table,
        relayed(aws_url) as to_aws,
    ):
        yield Wired(to_imburse, to_table, to_aws)


@pytest.fixture
def table(dynalite: Dynalite) -> str:
    return dynalite.new_table()


@pytest.fixture
def door(wired: Wired, table: str) -> Iterator[Any]:
    module = handler_module("vend")
    with (
        mock.patch.dict(os.environ, wired.environ(table)),
        patient(),
        mock.patch.object(module, "vending", Vending.from_env(os.environ)),
    ):
        yield module


def vend(door: Any) -> dict[str, Any]:
    answer: dict[str, Any] = door.handler(EVENT, Context())
    assert answer["accessToken"]
    return answer


def test_vends_one_after_the_other_need_one_connection_to_each(door: Any, wired: Wired) -> None:
    for _ in range(VENDS):
        vend(door)
    assert [wired.imburse.connections, wired.table.connections, wired.aws.connections] == [1, 1, 1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_an_answer_of_any_kind_leaves_the_connection_to_the_next(wired: Wired, imburse: Imburse, status: int) -> None:
    transport = Transport()
    imburse.faults.add(Fault("status", status=status))
    for _ in range(VENDS):
        with pytest.raises(VendingError):
            transport.send("POST", wired.imburse.url + EXCHANGE_PATH, {}, deadline=Deadline.after(30))
    assert imburse.statistics.faults_served == VENDS
    assert wired.imburse.connections == 1


def test_claims_and_counts_of_many_vends_share_a_handful_of_connections(
    door: Any, wired: Wired, members: dict[str, Any], dynalite: Dynalite, table: str
) -> None:
    members.update(poolMin=VENDS, poolMax=VENDS)
    key = ApiKey.from_secret(json.dumps(members))
    pool = Pool(Table(client(dynalite.url), table))
    for number in range(VENDS):
        fresh = pooled(f"token-{number}", 1800)
        pool.put(CREDENTIAL, replace(fresh, public_key=key.public_key, base_url=wired.imburse.url))
    got = {vend(door)["accessToken"] for _ in range(VENDS)}
    assert got == {f"token-{number}" for number in range(VENDS)}
    assert wired.imburse.connections == 0
    assert wired.table.connections <= 4  # a claim, two counters and a wake go side by side


def test_claims_one_after_the_other_need_one_connection(wired: Wired, table: str) -> None:
    with mock.patch.dict(os.environ, wired.environ(table)), patient():
        pool = Pool(Table(dynamodb_client(Aws()), table))
    key = ApiKey("public-1", secret()["privateKey"], "account-1", "tenant-a")
    for number in range(VENDS):
        pool.put(CREDENTIAL, pooled(f"token-{number}", 1800))
    for _ in range(VENDS):
        assert pool.claim(CREDENTIAL, key, least_seconds=300)
    assert wired.table.connections == 1


def test_keys_are_read_and_the_refill_is_woken_on_one_connection_each(wired: Wired, table: str) -> None:
    with mock.patch.dict(os.environ, wired.environ(table)):
        secrets, waker = SecretStore(secrets_client(Aws())), Waker(FakeTable(), lambda_client(Aws()), REFILL)
    key = secrets.get(CREDENTIAL)
    for _ in range(VENDS):
        secrets.reread(CREDENTIAL, key)
    assert wired.aws.connections == 1
    for number in range(VENDS):
        assert waker.wake(CredentialId("sandbox", f"tenant-{number}"))
    assert wired.aws.connections == 2


def test_no_thread_watches_over_an_answer(door: Any, imburse: Imburse) -> None:
    vend(door)
    started: list[str] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    imburse.faults.add(Fault("latency", seconds=0.05))
    with mock.patch.object(threading.Thread, "start", counted):
        vend(door)
    assert started == []
