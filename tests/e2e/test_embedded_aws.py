"""The embedded AWS: its table is the template's, and a claim on it is won once."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local.embedded_aws import make_tables, moto_server
from local.guard import Guard
from local.lambda_variables import sealed_variables
from local.serving import in_background
from local.stack import ACCOUNT_ID, PROJECT, REGION, STACK_NAME
from local.template import TableSpec, read_application
from vending.table import Table

CLAIMERS = 8
TOKENS = 25


@pytest.fixture(scope="module")
def spec() -> TableSpec:
    application = read_application(
        PROJECT / "template.yaml", {}, stack_name=STACK_NAME, region=REGION, account_id=ACCOUNT_ID
    )
    (spec,) = application.tables
    return spec


@pytest.fixture(scope="module")
def client(spec: TableSpec) -> Iterator[Any]:
    guard = Guard()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)

        @asynccontextmanager
        async def server() -> Any:
            async with moto_server(0, env=sealed_variables(REGION, home), cwd=home, guard=guard) as url:
                yield url

        try:
            with in_background(server()) as url:
                make_tables([spec], endpoint_url=url, region=REGION)
                config = Config(max_pool_connections=CLAIMERS, proxies={})
                session = boto3.Session("local", "local", region_name=REGION)
                yield session.client("dynamodb", endpoint_url=url, config=config)
        finally:
            guard.close()


def test_the_table_is_made_as_the_template_says(client: Any, spec: TableSpec) -> None:
    table = client.describe_table(TableName=spec.name)["Table"]
    assert spec.name == f"{STACK_NAME}-VendingTable"
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["pk", "sk"]
    ttl = client.describe_time_to_live(TableName=spec.name)["TimeToLiveDescription"]
    assert ttl["AttributeName"] == spec.ttl == "ttl"


def test_an_item_that_many_take_at_once_is_taken_by_one(client: Any, spec: TableSpec) -> None:
    table = Table(client, spec.name)
    for number in range(TOKENS):
        table.put({"pk": "pool#sandbox/tenant-a", "sk": f"{number:03}", "token": f"token-{number}"})
    won: Counter[str] = Counter()
    together = threading.Barrier(CLAIMERS)

    def claim() -> None:
        for number in range(TOKENS):
            together.wait(30)
            item = table.take("pool#sandbox/tenant-a", f"{number:03}")
            if item is not None:
                won[str(item["token"])] += 1

    threads = [threading.Thread(target=claim) for _ in range(CLAIMERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == {f"token-{number}": 1 for number in range(TOKENS)}
