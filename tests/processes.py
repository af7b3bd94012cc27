"""Which processes run, for tests that prove that none is left; from /proc where there is one (`ps` is not everywhere), else `ps`."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_DEADLINE_SECONDS = 10


class _Process(NamedTuple):
    parent: int
    state: str


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than a zombie that nobody has collected."""
    process = _processes().get(pid)
    return process is not None and not process.state.startswith(("Z", "X"))


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    processes = _processes()
    found = [pid]
    for ancestor in found:
        found += [child for child, process in processes.items() if process.parent == ancestor]
    return found[1:]


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = _DEADLINE_SECONDS) -> None:
    """Polls until the condition holds; fails after 10 s, or as many as given, saying what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def _processes() -> dict[int, _Process]:
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
        ).stdout
        rows = [line.split() for line in listed.splitlines()]
        return {int(pid): _Process(int(parent), state) for pid, parent, state in rows}
    processes = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # pid (name) state parent ...: the name may hold anything, so the last bracket ends it
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        processes[int(folder.name)] = _Process(int(parent), state)
    return processes
