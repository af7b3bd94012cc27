"""Cold starts, through AWS's own runtime client in a process of its own: to ready, and to the first token.

Ready is when the function asks the Runtime API for work the first time; a first token is the answer to a vend that waits from
the start, with an Imburse that answers at once and moto for AWS, each in a process of its own. Both are counted from the start of
the process. On Lambda the functions have SnapStart, which restores what is initialised here; a restore cannot be measured here,
so these are the figures of the init that is snapshot, and of a function that is started without one.

`python -m tests.bench.cold_start FUNCTION` prints which packages a function's imports spend their time on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from local.embedded_aws import make_tables, moto_server, put_secrets
from local.guard import Guard
from local.lambda_environment import Environment
from local.lambda_runtime import NotTakenError
from local.lambda_types import Invocation, LogLine
from local.lambda_variables import sealed_variables
from local.serving import in_background
from local.stack import ACCOUNT_ID, PROJECT, REGION
from tests.bench.cold_start_place import Place, Subject, application, functions, peers
from tests.bench.side_by_side import Comparison, Contestant, Target, compare
from tests.bench.slow_upstream import slow_upstream
from tests.fakes import secret

INIT_SECONDS = 60
WARM_UP = 1
TOP_PACKAGES = 25
NAMES = {
    "usual": "boto3, requests, Logger and Metrics",
    "empty": "an empty handler",
    "one_client": "boto3 and one client",
    "tutorial": "the tutorial's vend",
    "tutorial_compiled": "the tutorial's vend, compiled",
}


@dataclass
class Starter:
    """Starts execution environments, one at a time. What they wrote is in `said`."""

    place: Place
    guard: Guard
    home: Path
    runner: asyncio.Runner
    said: list[str] = field(default_factory=list)
    _last: Environment | None = None

    def ready(self, subject: Subject) -> None:
        """Start one, until it asks for work. Raises InitError."""
        self.runner.run(self._ready(subject))

    def first(self, subject: Subject, event: object, alias: str) -> Any:
        """Start one that has an event waiting for it, until it has answered: the answer. Raises RuntimeError if it failed."""
        return self.runner.run(self._first(subject, event, alias))

    def clear(self) -> None:
        """End what was started last."""
        if self._last is not None:
            self.runner.run(self._last.close())
            self._last = None

    async def _start(self, subject: Subject) -> Environment:
        self.said.clear()
        self._last = await Environment.start(
            subject.spec,
            env=subject.environ(self.home),
            task_root=subject.task,
            log=self._say,
            guard=self.guard,
            python=str(self.place.python),
        )
        return self._last

    async def _ready(self, subject: Subject) -> None:
        environment = await self._start(subject)
        await environment.initialise(INIT_SECONDS)

    async def _first(self, subject: Subject, event: object, alias: str) -> Any:
        arn = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{subject.spec.name}:{alias}"
        invocation = Invocation("request-1", arn, json.dumps(event).encode(), "Root=1-0-0;Sampled=0", None)
        environment = await self._start(subject)
        try:
            outcome = await environment.invoke(invocation)
        except NotTakenError as exc:
            outcome = exc.outcome
        if outcome.function_error is not None:
            raise RuntimeError("\n".join([f"{subject.spec.name}: {outcome.payload.decode()}", *self.said]))
        return json.loads(outcome.payload)

    def _say(self, line: LogLine) -> None:
        self.said.append(line.text)


@contextmanager
def starter(place: Place) -> Iterator[Starter]:
    """One whose last environment is ended with the block."""
    with tempfile.TemporaryDirectory() as home, closing(Guard()) as guard, asyncio.Runner() as runner:
        made = Starter(place, guard, Path(home), runner)
        try:
            yield made
        finally:
            made.clear()


def ready(rounds: int, place: Place | None = None) -> Comparison:
    """Every function beside the peers, the usual one first."""
    place = place or Place.standard()
    with starter(place) as starts:
        variables = {"IMBURSE_URL": "https://imburse.test", "SECRET_PREFIX": "imburse/"}
        beside = peers(place, starts.home / "peers", variables)
        subjects = {NAMES[name]: beside[name] for name in NAMES} | functions(place, application().functions, {})
        contestants = [
            Contestant(name, partial(starts.ready, subject), prepare=starts.clear) for name, subject in subjects.items()
        ]
        targets = [Target("VendFunction", 1.0), Target("ApiFunction", 1.1)]
        shows = list(subjects)[1:]
        return compare("Cold start to ready", contestants, rounds=rounds, warm_up=WARM_UP, targets=targets, shows=shows)


def first_token(rounds: int, place: Place | None = None) -> Comparison:
    """The functions that vend beside the tutorial's."""
    place = place or Place.standard()
    members = secret()
    events = {name: json.loads((PROJECT / f"events/{name}.json").read_text()) for name in ("api_token", "vend_single")}
    with starter(place) as starts, slow_upstream(0, members) as imburse:
        template = application(imburse)
        moto = moto_server(0, env=sealed_variables(REGION, starts.home), cwd=starts.home, guard=starts.guard)
        with in_background(moto) as aws:
            put_secrets({"imburse/sandbox/tenant-a": json.dumps(members)}, endpoint_url=aws, region=REGION)
            make_tables(template.tables, endpoint_url=aws, region=REGION)
            variables = {"AWS_ENDPOINT_URL": aws, "IMBURSE_URL": imburse, "SECRET_PREFIX": "imburse/"}
            beside = peers(place, starts.home / "peers", variables)
            ours = functions(place, template.functions, variables)

            def vend(subject: Subject, event: str, alias: str = "live") -> Callable[[], None]:
                def run() -> None:
                    assert accessible(starts.first(subject, events[event], alias)), starts.said

                return run

            contestants = [
                *(
                    Contestant(NAMES[name], vend(beside[name], "api_token"), prepare=starts.clear)
                    for name in ("tutorial", "tutorial_compiled")
                ),
                Contestant(
                    "VendFunction", vend(ours["VendFunction"], "vend_single", "settlement-job"), prepare=starts.clear
                ),
                Contestant("ApiFunction", vend(ours["ApiFunction"], "api_token"), prepare=starts.clear),
            ]
            targets = [Target("VendFunction", 0.6), Target("ApiFunction", 0.6)]
            shows = [contestant.name for contestant in contestants[1:]]
            return compare(
                "Cold start to first token", contestants, rounds=rounds, warm_up=WARM_UP, targets=targets, shows=shows
            )


def accessible(answer: Mapping[str, Any]) -> bool:
    """Whether there is a token in what a direct or a proxied function answered."""
    body = json.loads(answer["body"]) if "body" in answer else answer
    return bool(body.get("accessToken"))


COMPARISONS: dict[str, tuple[Callable[[int], Comparison], int, int]] = {
    "ready": (ready, 21, 3),
    "first token": (first_token, 15, 3),
}


def imports(subject: Subject, place: Place, home: Path) -> dict[str, tuple[float, int]]:
    """Seconds and modules by top package, the longest first, of what starting the function imports. RuntimeError: it fails."""
    module = subject.spec.handler.rpartition(".")[0].replace("/", ".")
    command = [str(place.python), "-X", "importtime", "-c", f"import {module}"]
    done = subprocess.run(command, env=subject.environ(home), cwd=subject.task, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds: dict[str, float] = defaultdict(float)
    modules: dict[str, int] = defaultdict(int)
    for line in done.stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if own.strip().isdigit():
            package = rest.partition("|")[2].strip().partition(".")[0]
            seconds[package] += int(own) / 1e6
            modules[package] += 1
    return {name: (seconds[name], modules[name]) for name in sorted(seconds, key=seconds.__getitem__, reverse=True)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print where a function's imports spend their time. What a handler does besides importing counts for `handlers`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cold_start", description=main.__doc__)
    parser.add_argument("function", nargs="?", default="VendFunction", choices=application().functions)
    name = parser.parse_args(arguments).function
    place = Place.standard()
    with tempfile.TemporaryDirectory() as home:
        found = imports(functions(place, application().functions, {})[name], place, Path(home))
    shown = Table(title=f"Imports of {name}", title_justify="left")
    for heading in ("package", "ms", "modules"):
        shown.add_column(heading, justify="left" if heading == "package" else "right")
    for package, (seconds, modules) in list(found.items())[:TOP_PACKAGES]:
        shown.add_row(package, f"{seconds * 1000:.1f}", str(modules))
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
