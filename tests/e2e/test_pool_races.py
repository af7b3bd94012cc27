"""The pool raced on a DynamoDB that is atomic: many claimers in several processes, some of which are killed, refills, expiry."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dynalite_server import Dynalite, client
from tests.fake_table import FakeTable
from tests.pool_racers import BATCH, CREDENTIAL, LEAST_SECONDS, pooled
from vending.supply.pool import Pool
from vending.table import _wired

PROCESSES, THREADS = 4, 16
IN_HAND = PROCESSES * (THREADS // 2 + THREADS // 2 * BATCH)
DEADLINE_SECONDS = 240  # generous: what takes 15 s alone may share its machine


@dataclass
class Racer:
    """A process, and where it writes what it says."""

    process: subprocess.Popen[bytes]
    said: Path

    def lines(self) -> list[str]:
        """The whole lines that it said after `ready`."""
        *whole, _ = self.said.read_text().split("\n")
        return whole[1:]

    def wait(self, condition: Callable[[Racer], bool]) -> None:
        """Until the condition holds, or it ended."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.process.poll() is None and not condition(self):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    def go(self) -> None:
        """Let it run."""
        assert self.process.stdin
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """As `kill -9` does, or a Lambda that runs out of memory."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Wait for its end, which must be a good one."""
        assert self.process.wait(DEADLINE_SECONDS) == 0, self.said.with_suffix(".err").read_text()


class Race:
    """One table and whoever runs on it."""

    def __init__(self, server: Dynalite, folder: Path) -> None:
        self._url = server.url
        self._name = server.new_table()
        self._table = server.table(self._name)
        self._folder = folder
        self.racers: list[Racer] = []

    def fill(self, name: str, count: int, *, life_seconds: int = 1800) -> set[str]:
        """Put that many tokens of that name, as the pool would put them, but 25 at a time."""
        made = FakeTable()
        for number in range(count):
            Pool(made).put(CREDENTIAL, pooled(f"{name}-{number}", life_seconds))
        writes = [{"PutRequest": {"Item": _wired(item)}} for item in made.items.values()]
        for start in range(0, count, 25):
            answer = client(self._url).batch_write_item(RequestItems={self._name: writes[start : start + 25]})  # type: ignore[dict-item]
            assert not answer["UnprocessedItems"]
        return {str(item["token"]) for item in made.items.values()}

    def enter(self, *role: str | int) -> Racer:
        """Start a process in a role; it waits for `go`."""
        said = self._folder / f"{len(self.racers)}.txt"
        with said.open("wb") as out, said.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.pool_racers", self._url, self._name, *map(str, role)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=Path(__file__).parents[2],
            )
        self.racers.append(Racer(process, said))
        return self.racers[-1]

    def claimers(self) -> list[Racer]:
        """64 claimers in four processes, who wait for `go`."""
        return [self.enter("claim", THREADS) for _ in range(PROCESSES)]

    def go(self, *racers: Racer) -> None:
        """Let them all run, once all are there."""
        for racer in racers:
            racer.wait(lambda racer: racer.said.read_text().startswith("ready\n"))
        for racer in racers:
            racer.go()

    def left(self) -> set[str]:
        """Every token that is still in the table, expired or not."""
        return {str(item["token"]) for item in self._table.query(f"pool#{CREDENTIAL}", attributes=["token"])}


@pytest.fixture
def race(dynalite: Dynalite, tmp_path: Path) -> Iterator[Race]:
    race = Race(dynalite, tmp_path)
    yield race
    for racer in race.racers:
        racer.kill()
        assert racer.process.stdin
        racer.process.stdin.close()


def claimed_by(claimers: Iterable[Racer]) -> set[str]:
    """What they got: none of it twice, none of it with less time left than they asked for."""
    claimed = [line for claimer in claimers for line in claimer.lines()]
    assert len(set(claimed)) == len(claimed), "a token was handed out twice"
    assert not [line for line in claimed if line.endswith(" late")], "a token was handed out too late"
    return set(claimed)


def test_64_claimers_share_10000_tokens_each_once_and_leave_none(race: Race) -> None:
    tokens = race.fill("first", 10_000)
    claimers = race.claimers()
    race.go(*claimers)
    for claimer in claimers:
        claimer.end()
    assert claimed_by(claimers) == tokens
    assert all(claimer.lines() for claimer in claimers), "one process had it all to itself: that was no race"


def test_claimers_that_are_killed_waste_what_they_had_in_hand_and_nobody_gets_it_again(race: Race) -> None:
    tokens = race.fill("first", 2_000)
    doomed, heirs = race.claimers(), race.claimers()
    race.go(*doomed, *heirs)
    lots = random.Random(3)
    for victim in doomed:
        moment = lots.randrange(1, 120)
        victim.wait(lambda racer, moment=moment: len(racer.lines()) >= moment)  # type: ignore[misc]
        victim.kill()
    for claimer in heirs:
        claimer.end()
    claimed = claimed_by([*doomed, *heirs])
    assert claimed <= tokens
    assert race.left() == set()
    assert len(tokens) - len(claimed) <= IN_HAND, "more was lost than the killed can have had in hand"


def test_refills_that_run_and_die_among_the_claimers_lose_nothing_and_repeat_nothing(race: Race) -> None:
    first = race.fill("first", 300)
    refills = [race.enter("refill", f"refill{number}", 300) for number in range(3)]
    claimers, rest = race.claimers(), race.claimers()
    race.go(*refills, *claimers)
    doomed = refills[0]
    doomed.wait(lambda racer: len(racer.lines()) >= 50)
    doomed.kill()
    for racer in (*refills[1:], *claimers):
        racer.end()
    race.go(*rest)  # the others ended when they found nothing, which may have been before the last was put
    for claimer in rest:
        claimer.end()
    claimed = claimed_by([*claimers, *rest])
    put = first.union(*(refill.lines() for refill in refills))
    assert claimed <= put
    assert put - claimed <= {doomed.lines()[-1]}, "only what the killed one was about to put may be missing"
    assert race.left() == set()


def test_tokens_that_expire_while_they_are_raced_for_are_handed_out_in_time_or_never(race: Race) -> None:
    claimers = race.claimers()
    lasting = race.fill("lasting", 300)
    expiring = race.fill("expiring", 1_000, life_seconds=LEAST_SECONDS + 4)
    race.go(*claimers)
    for claimer in claimers:
        claimer.end()
    claimed, left = claimed_by(claimers), race.left()
    assert lasting <= claimed
    assert not claimed & left
    assert len(expiring - claimed - left) <= IN_HAND, (
        "nothing is thrown away but what expires between the look and the hand"
    )
