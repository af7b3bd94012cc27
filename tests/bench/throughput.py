"""Vends a second on this machine, and the memory of one execution environment, beside the tutorial's vend on a host like ours.

All of it shares this machine's cores: the functions (4 environments each, as many as two cores can keep busy), the Lambda host, the
Imburse emulator, moto, and the callers. So these are not figures of AWS, where each environment has its own share of a core and
there are as many as callers; what counts is the ratio, and the empty function says what the host could carry at most. Ours decides
by policy, asks brake and table, and writes an audit record and metrics for each token; the tutorial's does nothing of these.

Memory is resident bytes of the process, with the libraries it shares with others here: on Lambda it shares them with nobody.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tests.bench.callers import Callers, Order, callers
from tests.bench.side_by_side import At, Comparison, gathered
from tests.bench.whole_stack import ALIAS, CREDENTIAL, EMPTY, TUTORIAL, VEND, WholeStack, whole_stack
from tests.processes import descendants

CALLERS = (1, 2, 4, 8, 16, 32, 64)
SHOWN_CALLERS = (1, 8, 64)
ENVIRONMENTS = 4
SLICE_SECONDS = 0.6
VENDS = 2000

_TUTORIAL, _VEND, _EMPTY = "the tutorial's vend", "vend", "an empty function"
_HANDLERS = {
    _TUTORIAL: "tests.bench.peers.tutorial.handler",
    _VEND: "handlers.vend.handler",
    _EMPTY: "tests.bench.peers.empty.handler",
}
_PROXIED = Path(__file__).parents[2] / "events" / "api_token.json"
_INVOKE = "/2015-03-31/functions/{}/invocations"


def throughput(rounds: int) -> list[Comparison]:
    """For each number of callers, so many slices of each in turn."""
    with whole_stack(environments=ENVIRONMENTS) as stack, callers() as process:
        orders = _orders(stack)
        for order in orders.values():  # starts all environments
            process.rate(replace(order, callers=max(CALLERS), seconds=SLICE_SECONDS))
        return [_rates(process, orders, count, rounds) for count in CALLERS]


def memory(vends: int) -> list[Comparison]:
    """One environment of each: when it has started, after its first vend, and after so many more."""
    with whole_stack(environments=1) as stack, callers() as process:
        orders = _orders(stack)
        held = {0: _resident_bytes(stack.pid)}
        for vended, count in ((1, 1), (vends + 1, vends)):
            for order in orders.values():
                process.rate(replace(order, most=count))
            held[vended] = _resident_bytes(stack.pid)
        return [
            gathered(
                f"Memory, after {vended:,} vend{'s' * (vended != 1)}",
                samples,
                unit="B",
                at=At("vends", vended),
                shows=[_VEND] if vended != 1 else [],
            )
            for vended, samples in held.items()
        ]


# Each with its rounds (of memory: its vends), and those of --quick.
COMPARISONS: dict[str, tuple[Callable[[int], list[Comparison]], int, int]] = {
    "throughput": (throughput, 5, 1),
    "memory": (memory, VENDS, 50),
}


def _orders(stack: WholeStack) -> dict[str, Order]:
    """One vend of each, by an invoke."""
    doors = stack.doors
    event = json.dumps({"credential": CREDENTIAL})
    return {
        _TUTORIAL: Order(
            doors.peers_invoke + _INVOKE.format(f"{TUTORIAL}:live"), _PROXIED.read_text(), wanted="accessToken"
        ),
        _VEND: Order(doors.invoke + _INVOKE.format(f"{VEND}:{ALIAS}"), event, wanted="accessToken"),
        _EMPTY: Order(doors.peers_invoke + _INVOKE.format(f"{EMPTY}:live"), event, wanted=""),
    }


def _rates(process: Callers, orders: Mapping[str, Order], count: int, rounds: int) -> Comparison:
    names = list(orders)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            rates[name].append(process.rate(replace(orders[name], callers=count, seconds=SLICE_SECONDS)))
    what = f"Vends a second, {count} caller{'s' if count > 1 else ''}"
    shows = [_VEND] if count in SHOWN_CALLERS else []
    return gathered(what, rates, unit="/s", at=At("callers", count), shows=shows)


def _resident_bytes(host: int) -> dict[str, list[float]]:
    """Of the one environment of each, among the children of the process that hosts them."""
    commands = {pid: _told(pid, "command") for pid in descendants(host)}
    found = {}
    for name, handler in _HANDLERS.items():
        (pid,) = (pid for pid, command in commands.items() if command.endswith(f"awslambdaric {handler}"))
        found[name] = [float(_told(pid, "rss")) * 1024]
    return found


def _told(pid: int, what: Literal["command", "rss"]) -> str:
    """The command of a process, or how much memory of it is resident, in KiB; from /proc where there is one, else from `ps`."""
    folder = Path(f"/proc/{pid}")
    if not folder.exists():
        return subprocess.run(
            ["ps", "-o", f"{what}=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout.strip()
    if what == "command":
        return (folder / "cmdline").read_text().rstrip("\0").replace("\0", " ")
    return (folder / "status").read_text().partition("VmRSS:")[2].split()[0]
