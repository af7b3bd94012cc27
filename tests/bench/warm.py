"""A warm vend by both doors beside the bare exchange that it is made of, and what the pool makes of Imburse's latency.

The doors of this machine, a Lambda host and an API front in Python, take more time than a vend does, and on AWS it is AWS who
takes it. So each handler is also called in this process, for the event of a real request and with the clients that it has on
Lambda, and the target, at most 2 ms over the bare exchange, is held against that: it is all of the vend that is ours. That
nothing is hidden behind the doors is shown where Imburse answers at once: each stands beside an empty function behind the same
door and a bare exchange, one after the other. It is the noisier figure: five processes share the machine's cores.

The bare exchange is what the handler must do at the least: sign, and `requests.post` on a session that keeps its connection.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import requests

from imburse_auth.exchange import EXCHANGE_PATH
from imburse_auth.hmac_token import sign
from local.demo_clients import Signed
from local.stack import REGION
from tests.bench.here import Here, handlers
from tests.bench.side_by_side import At, Comparison, Contestant, Target, compare
from tests.bench.whole_stack import (
    ACCESS_KEY_ID,
    ALIAS,
    CREDENTIAL,
    EMPTY,
    POOLED,
    SECRET_ACCESS_KEY,
    VEND,
    WholeStack,
    whole_stack,
)

LATENCIES_SECONDS = (0.0, 0.1, 0.3)
OVERHEAD_SECONDS = 0.002
BATCH = 100
BATCH_LATENCY_SECONDS = 0.1
SAME_WITHIN = 1.1
DEADLINE_SECONDS = 30
AT_ONCE_TIMES = 3  # as many rounds where none is waited for
WARM_UP = 2

BARE = "a bare exchange"
HANDLER, API_HANDLER = "direct door's handler", "API door's handler"
DOOR, API_DOOR = "direct door", "API door"
FLOOR, API_FLOOR = (f"{door} to an empty function + an exchange" for door in (DOOR, API_DOOR))


def warm(rounds: int) -> list[Comparison]:
    """One token by everything, for each latency of Imburse."""
    comparisons = []
    with whole_stack(environments=1) as stack, handlers(stack) as here, _doors(stack, here) as (contestants, floors):
        for latency_seconds in LATENCIES_SECONDS:
            set_latency(stack.imburse_url, latency_seconds)
            here_too = contestants if latency_seconds else contestants + floors
            made = compare(
                f"Warm vend, {_named(latency_seconds)}",
                here_too,
                rounds=rounds if latency_seconds else rounds * AT_ONCE_TIMES,
                warm_up=WARM_UP,
                targets=[Target(name, OVERHEAD_SECONDS, by="difference") for name in (HANDLER, API_HANDLER)],
                at=At("Imburse's latency in ms", latency_seconds * 1000),
                shows=[contestant.name for contestant in here_too[1:]],
            )
            comparisons.append(made)
    return comparisons


def pooling(rounds: int) -> Comparison:
    """One token out of the pool, by the direct door's handler in this process, while Imburse is fast or slow."""
    with whole_stack(environments=1) as stack, handlers(stack) as here:
        here.fill((rounds + WARM_UP) * len(LATENCIES_SECONDS))
        contestants = [
            Contestant(
                _named(latency_seconds),
                here.vend_pooled,
                prepare=lambda seconds=latency_seconds: set_latency(stack.imburse_url, seconds),  # type: ignore[misc]
            )
            for latency_seconds in LATENCIES_SECONDS
        ]
        targets = [Target(_named(latency_seconds), SAME_WITHIN) for latency_seconds in LATENCIES_SECONDS[1:]]
        return compare("Vend out of the pool", contestants, rounds=rounds, warm_up=WARM_UP, targets=targets)


def pool_batching(rounds: int) -> Comparison:
    """A batch out of the pool beside one exchanged in line."""
    with whole_stack(environments=1) as stack, handlers(stack) as here:
        set_latency(stack.imburse_url, BATCH_LATENCY_SECONDS)
        contestants = [
            Contestant(f"{BATCH} tokens exchanged in line", lambda: here.batch(BATCH)),
            Contestant(
                f"{BATCH} tokens out of the pool",
                lambda: here.batch(BATCH, POOLED),
                prepare=lambda: here.fill(BATCH),
            ),
        ]
        what = f"Batch out of the pool, {_named(BATCH_LATENCY_SECONDS)}"
        return compare(what, contestants, rounds=rounds, warm_up=1, shows=[])  # the README shows what has a target


# Each with its rounds, and those of --quick.
COMPARISONS: dict[str, tuple[Callable[[int], Comparison | list[Comparison]], int, int]] = {
    "warm": (warm, 100, 5),
    "pool": (pooling, 200, 20),
    "pool-batch": (pool_batching, 7, 2),
}


def set_latency(imburse_url: str, seconds: float) -> None:
    """Have the emulator answer exchanges that much later from now on."""
    faults = f"{imburse_url}/control/faults"
    requests.delete(faults, timeout=DEADLINE_SECONDS).raise_for_status()
    fault = {"kind": "latency", "path": EXCHANGE_PATH, "seconds": seconds}
    requests.post(faults, json=fault, timeout=DEADLINE_SECONDS).raise_for_status()


def _named(latency_seconds: float) -> str:
    return f"Imburse at {latency_seconds * 1000:.0f} ms"


@contextmanager
def _doors(stack: WholeStack, here: Here) -> Iterator[tuple[list[Contestant], list[Contestant]]]:
    with (
        requests.Session() as imburse,
        requests.Session() as front,
        _invoke(stack.doors.invoke, f"{VEND}:{ALIAS}", CREDENTIAL) as vend,
        _invoke(stack.doors.peers_invoke, f"{EMPTY}:live", CREDENTIAL) as empty,
    ):
        imburse.trust_env = front.trust_env = False
        front.auth = Signed(ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION)
        api_key = here.api_key
        url = stack.imburse_url + EXCHANGE_PATH

        def exchange() -> None:
            headers = {"Authorization": sign(api_key).authorization}
            imburse.post(url, headers=headers, timeout=DEADLINE_SECONDS).raise_for_status()

        def ask(base_url: str) -> None:
            path = f"/v1/credentials/{CREDENTIAL}/token"
            front.post(base_url + path, timeout=DEADLINE_SECONDS).raise_for_status()

        def empty_and_exchange() -> None:
            empty()
            exchange()

        def empty_by_api_and_exchange() -> None:
            ask(stack.doors.peers_api)
            exchange()

        contestants = [
            Contestant(BARE, exchange),
            Contestant(HANDLER, here.vend),
            Contestant(API_HANDLER, here.vend_by_api),
            Contestant(DOOR, vend),
            Contestant(API_DOOR, lambda: ask(stack.doors.api)),
        ]
        floors = [Contestant(FLOOR, empty_and_exchange), Contestant(API_FLOOR, empty_by_api_and_exchange)]
        yield contestants, floors


@contextmanager
def _invoke(base_url: str, function: str, credential: str) -> Iterator[Callable[[], None]]:
    """What invokes the function once, on a connection that is kept, as an SDK does, but without its own work."""
    address = urlsplit(base_url)
    assert address.hostname
    body = json.dumps({"credential": credential})
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=DEADLINE_SECONDS)) as connection:

        def invoke() -> None:
            connection.request("POST", f"/2015-03-31/functions/{function}/invocations", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            assert answer.headers["X-Amz-Function-Error"] is None

        yield invoke
