"""Conducting a run: callers call, faults come and go, an environment dies each ten seconds; what happened is the outcome."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import requests

from local.stack import PROJECT, REGION, STACK_NAME
from tests.load.answers import Expected
from tests.load.callers import PATIENCE_SECONDS, Orders
from tests.load.environments import Environment, Environments, Kill
from tests.load.plan import KINDS, Plan
from tests.load.visit import Visit
from tests.load.world import World, keys, world

_TICK_SECONDS = 0.1
_SAMPLE_SECONDS = 1.0
_MEETING_SECONDS = 20.0  # for somebody to meet a fault
_WELL = 3  # so many visits of each kind must come to a good end after the last fault


@dataclass(frozen=True)
class Happened:
    """A fault, and from when to when it was in force; `met` counts the requests that came its way."""

    fault: str
    began: float
    ended: float
    met: int


@dataclass
class Outcome:
    """All that is to be judged. Times are seconds since the epoch; `issued` is how often Imburse answered each token."""

    plan: Plan
    began: float
    ended: float = 0.0
    settled: bool = False
    visits: list[Visit] = field(default_factory=list)
    faults: list[Happened] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    refills: list[str] = field(default_factory=list)
    environments: list[Environment] = field(default_factory=list)
    issued: Counter[str] = field(default_factory=Counter)
    statistics: dict[str, Any] = field(default_factory=dict)
    log: Path = Path()


def conduct(plan: Plan, folder: Path, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run it; `folder` gets the functions' log. Nothing of it runs on afterwards, whatever is raised."""
    folder.mkdir(parents=True, exist_ok=True)
    with world(plan, folder) as (running, expected):
        environments = Environments(running.proxy.url, plan.seed)
        outcome = Outcome(plan, 0.0, log=folder / "functions.log")
        refills = _Refills(running.stack.lambda_url, outcome.refills)
        refills.fire()
        refills.join()
        with _calling(plan, running, expected, outcome.visits):
            outcome.began = time.time() + plan.lead_seconds
            _play(plan, running, outcome, environments, refills, say)
            say("every fault is over; waiting until everybody is served again")
            outcome.settled = _settle(outcome, plan.settle_seconds)
            outcome.ended = time.time()
            environments.look()
            refills.join()
        outcome.environments = list(environments.seen.values())
        outcome.issued, outcome.statistics = running.issued.times, running.issued.as_json()
    return outcome


def _play(
    plan: Plan,
    running: World,
    outcome: Outcome,
    environments: Environments,
    refills: _Refills,
    say: Callable[[str], None],
) -> None:
    """One fault after the other. One that nobody has met yet lasts on for a while, and the plan waits for it."""
    wait = _Waiting(plan, outcome, environments, refills)
    late_seconds = 0.0
    for start, end, name in plan.faults():
        wait.until(start + late_seconds)
        say(f"{wait.seconds():5.0f} s  {name}")
        began, met = time.time(), running.met(name)
        running.begin(name)
        if name.startswith("Secrets Manager"):  # only who has just started has no key in memory
            wait.kill("vend", "api")
        wait.until(end + late_seconds)
        wait.until(end + late_seconds + _MEETING_SECONDS, or_else=lambda: running.met(name) > met)  # noqa: B023
        late_seconds = max(late_seconds, wait.seconds() - end)
        running.end(name)
        outcome.faults.append(Happened(name, began, time.time(), running.met(name) - met))


class _Waiting:
    """Waits, and meanwhile kills, refills and samples the memory whenever that is due."""

    def __init__(self, plan: Plan, outcome: Outcome, environments: Environments, refills: _Refills) -> None:
        self._outcome = outcome
        self._environments = environments
        victims = cycle(("vend", "api", "vend", "api", "refill"))
        self._chores: list[tuple[float, Callable[[], object]]] = [
            (_SAMPLE_SECONDS, environments.look),
            (plan.refill_every_seconds, refills.fire),
            (plan.kill_every_seconds, lambda: self.kill(next(victims))),
        ]
        self._due = [every for every, _ in self._chores]

    def seconds(self) -> float:
        """Since the beginning."""
        return time.time() - self._outcome.began

    def until(self, seconds: float, *, or_else: Callable[[], bool] = lambda: False) -> None:
        """Until so many seconds after the beginning, or a condition holds."""
        while self.seconds() < seconds and not or_else():
            for number, (every, chore) in enumerate(self._chores):
                if self.seconds() >= self._due[number]:
                    self._due[number] += every
                    chore()
            time.sleep(_TICK_SECONDS)

    def kill(self, *functions: str) -> None:
        """One environment of each, if there is one to kill."""
        self._outcome.kills += filter(None, map(self._environments.kill, functions))


def _settle(outcome: Outcome, seconds: float) -> bool:
    """Wait until everybody is well again since the last fault; False if that takes longer."""
    deadline = time.monotonic() + seconds
    while not all_well(list(outcome.visits), since=outcome.faults[-1].ended):
        if time.monotonic() > deadline:
            return False
        time.sleep(5 * _TICK_SECONDS)
    return True


def all_well(visits: Iterable[Visit], *, since: float) -> bool:
    """Whether every kind of caller was answered as it should be some times in a row with what it asked after that time.

    One that is over its budget is answered rightly, but not served: that says nothing either way.
    """
    well: Counter[tuple[str, str]] = Counter()
    for visit in visits:
        if visit.started > since and visit.code != "over_budget":
            served = visit.code in (None, "not_authorized")
            well[visit.kind, visit.door] = well[visit.kind, visit.door] + 1 if served else 0
    return all(well[kind.name, kind.door] >= _WELL for kind in KINDS)


class _Refills:
    """Fires the refill's schedule without waiting for it."""

    def __init__(self, lambda_url: str, told: list[str]) -> None:
        self._url = f"{lambda_url}/local/schedules/{STACK_NAME}-refill"
        self._told = told
        self._threads: list[threading.Thread] = []

    def fire(self) -> None:
        thread = threading.Thread(target=self._fire, daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def _fire(self) -> None:
        try:
            answer = requests.post(self._url, timeout=PATIENCE_SECONDS).json()
        except requests.RequestException as exc:
            answer = {"errorType": type(exc).__name__}
        states = [f"{one['state']} {one.get('code', '')}".strip() for one in answer.get("pools", {}).values()]
        self._told += states or [answer.get("errorType", "no pool")]


@contextmanager
def _calling(plan: Plan, running: World, expected: dict[str, Expected], visits: list[Visit]) -> Iterator[None]:
    """The callers, at it until the block is left; `visits` gets what they tell of each, all of it once the block was left."""
    stack = running.stack
    orders = Orders(
        stack.api_url,
        stack.lambda_url,
        stack.imburse_url,
        REGION,
        f"{STACK_NAME}-vend",
        keys(),
        expected,
        plan.callers,
        plan.seed,
        plan.pause_seconds,
    )
    command = [sys.executable, "-m", "tests.load.callers"]
    # A session of its own: Ctrl-C is for us, who end the callers in good order.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT, start_new_session=True
    )
    assert process.stdin
    assert process.stdout
    listener = threading.Thread(target=_listen, args=(process.stdout, visits))
    listener.start()
    try:
        process.stdin.write(orders.line())
        process.stdin.flush()
        yield
        process.stdin.close()
        if ended := process.wait(2 * PATIENCE_SECONDS):
            raise RuntimeError(f"the callers ended with {ended}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        listener.join()
        process.stdin.close()
        process.stdout.close()


def _listen(told: IO[str], visits: list[Visit]) -> None:
    for line in told:
        if line.endswith("\n"):  # else its writer was killed
            visits.append(Visit.of(line))  # noqa: PERF401 - others look at them meanwhile
