"""The local stack in a process of its own, so that it and whoever calls it do not share an interpreter, with the bench's peers.

The peers run on a second Lambda host like the stack's own, behind a second API front: their doors are then the floor of ours.
`python -m tests.bench.whole_stack` reads what it is made of from a line of standard input, writes where it answers, and ends
with its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from local.api_caller import LocalCaller
from local.api_front import api_front
from local.guard import Guard
from local.lambda_host import HostSettings, LambdaHost
from local.lambda_invoke import invoke_api
from local.serving import bind, serving
from local.stack import ACCOUNT_ID, PROJECT, REGION, LocalStack, StackSettings
from local.template import FunctionSpec, Route
from tests.bench.slow_upstream import slow_upstream
from tests.fakes import secret

ROLE, ACCESS_KEY_ID, SECRET_ACCESS_KEY = "orders", "ORDERS", "orders-secret"
ALIAS = "settlement-job"
CREDENTIAL, POOLED = "sandbox/tenant-a", "sandbox/pooled"
VEND, EMPTY, TUTORIAL = "imburse-vending-vend", "bench-empty", "bench-tutorial"
MOST_POOLED = 200
POLICY = f"""
@id("role") permit (principal == Caller::"arn:aws:iam::{ACCOUNT_ID}:role/{ROLE}", action == Action::"vend", resource);
@id("job") permit (principal == Caller::"alias/{ALIAS}", action == Action::"vend", resource);
"""
_CALLER = LocalCaller(ACCESS_KEY_ID, SECRET_ACCESS_KEY, f"arn:aws:iam::{ACCOUNT_ID}:role/{ROLE}")
_SCHEMA = PROJECT / "layers/access_policy/access_policy/schema.cedarschema"


@dataclass(frozen=True)
class Doors:
    """Base URLs: the stack's, and those of the peers."""

    api: str
    invoke: str
    aws: str
    peers_api: str
    peers_invoke: str


@dataclass(frozen=True)
class WholeStack:
    """A running stack in front of an Imburse in yet another process, which knows the key of the two credentials.

    `members` is what the secret of CREDENTIAL holds; that of POOLED has the same key and a pool. `policy` is the file of rules,
    which grant ROLE and ALIAS everything, without a budget. `pid` is the process whose children the functions are.
    """

    doors: Doors
    imburse_url: str
    members: Mapping[str, Any] = field(repr=False)
    policy: Path
    pid: int


@contextmanager
def whole_stack(*, environments: int = 8) -> Iterator[WholeStack]:
    """One that runs until the block is left; each function may have so many execution environments."""
    members = secret()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, slow_upstream(0, members) as imburse_url:
        policy = Path(folder, "bench.cedar")
        policy.write_text(POLICY)
        policy.with_name(_SCHEMA.name).write_text(_SCHEMA.read_text())
        asked = {
            "members": members,
            "imburse_url": imburse_url,
            "policy": str(policy),
            "environments": environments,
        }
        command = [sys.executable, "-m", "tests.bench.whole_stack"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                told = process.stdout.readline()
                assert told, "the stack ended at once"
                yield WholeStack(Doors(**json.loads(told)), imburse_url, members, policy, process.pid)
            finally:
                process.stdin.close()


async def serve() -> None:
    """Serve until the input ends."""
    asked = json.loads(sys.stdin.readline())
    pooled = {**asked["members"], "poolMin": MOST_POOLED, "poolMax": MOST_POOLED}
    settings = StackSettings(
        secrets={f"imburse/{CREDENTIAL}": json.dumps(asked["members"]), f"imburse/{POOLED}": json.dumps(pooled)},
        callers={ACCESS_KEY_ID: _CALLER},
        imburse_url=asked["imburse_url"],
        policy=Path(asked["policy"]),
        concurrency=asked["environments"],
    )
    async with (
        LocalStack(settings) as stack,
        _peers(stack.moto_url, asked["imburse_url"], asked["environments"]) as (peers_api, peers_invoke),
    ):
        doors = Doors(stack.api_url, stack.lambda_url, stack.moto_url, peers_api, peers_invoke)
        sys.stdout.write(json.dumps(asdict(doors)) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def _peers(aws_url: str, imburse_url: str, environments: int) -> AsyncIterator[tuple[str, str]]:
    functions = [
        FunctionSpec("Empty", EMPTY, "tests.bench.peers.empty.handler", 30, 512, {}, ("live",)),
        FunctionSpec(
            "EmptyProxy", "bench-empty-proxy", "tests.bench.peers.empty_proxy.handler", 30, 512, {}, ("live",)
        ),
        FunctionSpec(
            "Tutorial",
            TUTORIAL,
            "tests.bench.peers.tutorial.handler",
            30,
            512,
            {"IMBURSE_URL": imburse_url, "SECRET_PREFIX": "imburse/"},
            ("live",),
        ),
    ]
    settings = HostSettings(
        PROJECT,
        region=REGION,
        account_id=ACCOUNT_ID,
        variables={"AWS_ENDPOINT_URL": aws_url},
        concurrency=environments,
    )
    guard = Guard()
    try:
        async with LambdaHost(functions, settings, guard=guard) as host:
            for spec in functions:
                await host.warm(spec.name, "live")
            routes = [Route("POST", "/v1/credentials/{environment}/{name}/token", "EmptyProxy", "live")]
            front = api_front(routes, host.invoke, {ACCESS_KEY_ID: _CALLER}, account_id=ACCOUNT_ID, region=REGION)
            async with serving(front, bind(0)) as api, serving(invoke_api(host, ()), bind(0)) as invoke:
                yield api, invoke
    finally:
        guard.close()


if __name__ == "__main__":
    asyncio.run(serve())
