"""The callers, in a process of their own: `python -m tests.load.callers` reads its orders, one line of JSON, from standard input.

It writes each visit to standard output as it ends, a line of JSON, and ends itself with its input, when what is under way has
been answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.load.answers import Expected, Reply, read
from tests.load.plan import Kind, casting
from tests.load.visit import Visit

PATIENCE_SECONDS = 90  # longer than anybody may take to answer: what takes longer is a finding of its own
_WORDS = {"single": "token", "batch": "tokens", "inspect": "identity"}


@dataclass(frozen=True)
class Orders:
    """Where to call, as whom and how often. `keys` is the secret access key of each role."""

    api_url: str
    lambda_url: str
    imburse_url: str
    region: str
    function: str
    keys: dict[str, str]
    credentials: dict[str, Expected]
    callers: int
    seed: int
    pause_seconds: float

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def of(cls, line: str) -> Orders:
        """From such a line."""
        members = json.loads(line)
        credentials = {
            name: Expected(**(one | {"public_keys": tuple(one["public_keys"])}))
            for name, one in members.pop("credentials").items()
        }
        return cls(**members, credentials=credentials)


class Caller:
    """One of them: asks, looks at the answer, uses each token once, waits a little, and asks again."""

    def __init__(self, orders: Orders, number: int, kind: Kind, http: aiohttp.ClientSession) -> None:
        self._orders = orders
        self._number = number
        self._kind = kind
        self._http = http
        self._random = Random(orders.seed * 1000 + number)
        self._expected = orders.credentials[kind.credential]

    async def call(self, stop: asyncio.Event, note: Callable[[Visit], None]) -> None:
        """Until told to stop."""
        while not stop.is_set():
            pause = self._random.uniform(0, 2 * self._orders.pause_seconds)
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                note(await self._visit())

    async def _visit(self) -> Visit:
        kind = self._kind
        asked = self._random.randint(2, kind.most) if kind.action == "batch" else 1
        visit = Visit(self._number, kind.name, kind.door, kind.credential, time.time())
        try:
            reply = await (self._by_api(asked) if kind.door == "api" else self._by_invoke(asked))
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            visit.ended, visit.code = time.time(), f"client:{type(exc).__name__}"
            return visit
        visit.ended = time.time()
        headers = read(visit, kind, asked, reply, self._expected, slack=visit.ended - visit.started)
        if kind.name != "shared":  # which is nobody's to use up
            visit.uses = list(await asyncio.gather(*map(self._use, visit.tokens, headers)))
        return visit

    async def _by_api(self, asked: int) -> Reply:
        kind, orders = self._kind, self._orders
        url = f"{orders.api_url}/v1/credentials/{kind.credential}/{_WORDS[kind.action]}"
        body = json.dumps({"count": asked}) if kind.action == "batch" else ""
        method = "GET" if kind.action == "inspect" else "POST"
        signed = AWSRequest(method, url, data=body)
        signer = SigV4Auth(Credentials(kind.who.upper(), orders.keys[kind.who]), "execute-api", orders.region)
        signer.add_auth(signed)
        return await self._send(method, url, body, dict(signed.headers.items()))

    async def _by_invoke(self, asked: int) -> Reply:
        kind, orders = self._kind, self._orders
        event: dict[str, Any] = {"credential": kind.credential} | ({"count": asked} if asked > 1 else {})
        url = f"{orders.lambda_url}/2015-03-31/functions/{orders.function}:{kind.who}/invocations"
        return await self._send("POST", url, json.dumps(event), {})

    async def _send(self, method: str, url: str, body: str, headers: dict[str, str]) -> Reply:
        async with self._http.request(method, url, data=body or None, headers=headers) as answer:
            error = answer.headers.get("X-Amz-Function-Error")
            return Reply(answer.status, answer.headers, await answer.read(), error)

    async def _use(self, token: str, headers: dict[str, str]) -> tuple[str, str]:
        """Use a token for the one call that it is good for; answers what became of that."""
        url = f"{self._orders.imburse_url}/v1/identity/me"
        try:
            async with self._http.get(url, headers=headers) as answer:
                document = await answer.json()
                tenants = [tenant["tenantId"] for tenant in document.get("tenants", [])]
                if answer.status == 200:
                    return token, "used" if tenants == [self._expected.tenant_id] else "reached another tenant"
                return token, str(document["errors"][0]["errorCode"])
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            return token, f"client:{type(exc).__name__}"


async def call(orders: Orders, note: Callable[[Visit], None]) -> None:
    """Call until the input ends."""
    stop = asyncio.Event()
    connections = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
    async with aiohttp.ClientSession(connector=connections, timeout=timeout) as http:
        callers = [Caller(orders, n, kind, http) for n, kind in enumerate(casting(orders.callers))]
        calls = [asyncio.create_task(one.call(stop, note)) for one in callers]
        await asyncio.to_thread(sys.stdin.read)
        stop.set()
        await asyncio.gather(*calls)


def main() -> None:
    """Take orders, and tell what comes of them."""
    orders = Orders.of(sys.stdin.readline())

    def note(visit: Visit) -> None:
        sys.stdout.write(visit.line())
        sys.stdout.flush()

    asyncio.run(call(orders, note))


if __name__ == "__main__":
    main()
