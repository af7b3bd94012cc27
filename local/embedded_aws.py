"""The embedded AWS: moto's server, in a process of its own, with the secrets and the tables put into it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.child import Child
from local.guard import Guard
from local.template import TableSpec

_CONFIG = Config(proxies={}, retries={"max_attempts": 1})
_RUNNING = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
_START_SECONDS = 30
_SERVER = Path(__file__).with_name("moto_process.py")


class MotoError(Exception):
    """The server did not start; the message holds what it said."""


@asynccontextmanager
async def moto_server(port: int, *, env: Mapping[str, str], cwd: Path, guard: Guard) -> AsyncIterator[str]:
    """Runs the server and gives its base URL once it answers; port 0 takes any free one. Raises MotoError."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    said: list[str] = []

    def on_line(line: str) -> None:
        if ready.done():
            return  # from here on a line is an access log entry
        said.append(line)
        if match := _RUNNING.search(line):
            ready.set_result(match[1])

    command = [sys.executable, "-I", str(_SERVER), str(port)]
    child = await Child.start(command, env=env, cwd=cwd, on_line=on_line, guard=guard)
    try:
        waited_for: list[asyncio.Future[Any]] = [ready, child.exited]
        await asyncio.wait(waited_for, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise MotoError(f"moto does not start: {' '.join(said) or 'it says nothing'}")
        yield ready.result()
    finally:
        ready.cancel()
        await child.close()


def put_secrets(secrets: Mapping[str, str], *, endpoint_url: str, region: str) -> None:
    """Creates secrets, name to SecretString."""
    client = boto3.Session("local", "local", region_name=region).client(
        "secretsmanager", endpoint_url=endpoint_url, config=_CONFIG
    )
    for name, text in secrets.items():
        client.create_secret(Name=name, SecretString=text)
    client.close()


def make_tables(tables: Iterable[TableSpec], *, endpoint_url: str, region: str) -> None:
    """Creates the template's DynamoDB tables, empty."""
    client = boto3.Session("local", "local", region_name=region).client(
        "dynamodb", endpoint_url=endpoint_url, config=_CONFIG
    )
    for table in tables:
        arguments: Any = {
            "TableName": table.name,
            "AttributeDefinitions": table.attributes,
            "KeySchema": table.keys,
            "BillingMode": "PAY_PER_REQUEST",
        }
        client.create_table(**arguments)
        if table.ttl is not None:
            client.update_time_to_live(
                TableName=table.name, TimeToLiveSpecification={"Enabled": True, "AttributeName": table.ttl}
            )
    client.close()
