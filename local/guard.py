"""A guard that ends the processes we started, should we die without doing so ourselves.

Nothing runs in a process that is killed with SIGKILL, so the guard is a process of its own: it reads from us which process
groups are running, over a pipe that the kernel closes when we are gone, and then kills those that are left. This works on
every Unix, covers children that never look at their parent (moto) or hang, and leaves the function processes as AWS runs them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess  # nosec B404 # starting a process is what this is for
import sys


class Guard:
    """Starts the guard process; `watch` and `forget` take the id of a process that leads its own process group."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C in the terminal, or a kill of our whole group, must not end the guard first.
        self._process = subprocess.Popen(  # nosec B603 # this very file, by this very Python
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Ends the guard, which kills what is still watched."""
        self._process.__exit__(None, None, None)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened above
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


def kill_group(group: int) -> None:
    """Kills a process group; it may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says "not permitted" of a group of zombies
        os.killpg(group, signal.SIGKILL)


def _main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        kill_group(group)


if __name__ == "__main__":
    _main()
