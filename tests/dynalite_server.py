"""dynalite, a DynamoDB in one process that is atomic under concurrency (moto's is not), for the tests that race."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from vending.table import Table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

FOLDER = Path(__file__).with_name("dynalite")


def client(url: str) -> DynamoDBClient:
    """A client for a DynamoDB at that address; unlike the functions' own it is patient, since a test machine may be slow."""
    return boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(connect_timeout=30, read_timeout=30, retries={"total_max_attempts": 1}, max_pool_connections=64),
    )


@dataclass
class Dynalite:
    """A running server. Each test takes a table of its own."""

    url: str
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_table(self) -> str:
        """Make an empty table and answer its name."""
        name = f"vending-{next(self._numbers)}"
        client(self.url).create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        client(self.url).get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        return name

    def table(self, name: str | None = None) -> Table:
        """The table of that name, or a new one."""
        return Table(client(self.url), name or self.new_table())


@contextmanager
def dynalite() -> Iterator[Dynalite]:
    """One server on a free port of this machine, gone afterwards."""
    node = shutil.which("node")
    assert node, "node is needed to run dynalite"
    assert (FOLDER / "node_modules").is_dir(), (
        "dynalite is not installed: make test does it, or npm ci in tests/dynalite"
    )
    server = subprocess.Popen(
        [node, str(FOLDER / "serve.js")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=FOLDER, text=True
    )
    assert server.stdin
    assert server.stdout
    try:
        port = json.loads(server.stdout.readline() or '"it ended at once"')
        yield Dynalite(f"http://127.0.0.1:{port:d}", server.pid)
    finally:
        server.stdin.close()  # it ends with its input
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        server.stdout.close()
