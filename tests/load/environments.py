"""The execution environments of a run: which there are, how much memory each holds, and one killed now and then."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.processes import descendants

KEPT = 2  # of each function the oldest are spared, so that somebody lives long enough for its memory to say something
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Environment:
    """One process; `samples` are (seconds since the epoch, resident bytes)."""

    pid: int
    function: str
    samples: list[tuple[float, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Kill:
    """When which function lost an environment."""

    at: float
    function: str


class Environments:
    """Those among our descendants whose variables hold `mark`, by process id."""

    def __init__(self, mark: str, seed: int) -> None:
        self._mark = mark.encode()
        self._random = Random(seed)
        self._others: set[int] = set()
        self.seen: dict[int, Environment] = {}

    def look(self) -> list[Environment]:
        """Sample the memory of those that are alive, which are answered in the order they were started."""
        alive = []
        for pid in descendants(os.getpid()):
            if pid not in self.seen and pid not in self._others:
                self._meet(pid)
            environment = self.seen.get(pid)
            if environment is None:
                continue
            try:
                resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
            except (OSError, IndexError):
                continue
            if resident:  # nothing is left of a zombie
                environment.samples.append((time.time(), resident))
                alive.append(environment)
        return sorted(alive, key=lambda one: one.samples[0])

    def kill(self, function: str) -> Kill | None:
        """`kill -9` one of a function's, by lot, but for the oldest two of a door; None if there is none to kill."""
        spared = 0 if function == "refill" else KEPT
        victims = [one for one in self.look() if one.function == function][spared:]
        if not victims:
            return None
        victim = self._random.choice(victims)
        at = time.time()
        os.kill(victim.pid, signal.SIGKILL)
        return Kill(at, function)

    def _meet(self, pid: int) -> None:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            ours = self._mark in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return
        handler = next((w.decode() for w in words if w.startswith(b"handlers.")), None)
        if handler is not None and ours:
            self.seen[pid] = Environment(pid, handler.split(".")[1])
        elif handler is None and b"awslambdaric" not in words and words != [b""]:
            return  # it may be between fork and exec: look again
        else:
            self._others.add(pid)
