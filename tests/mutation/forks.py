"""Test runs in forks of one process that has imported pytest and the libraries, and nothing of the project: half the work a run.

`python -m tests.mutation.forks` is that process. It reads one JSON document a line, `{"arguments": [of pytest], "seconds": the most,
"compile": whether compiled modules may be kept}`, and answers with one, `{"code": of pytest, or null after the time, "output"}`.
Only the standard library is used here, so that cosmic-ray's own environment has the other end of it as well.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

_LIBRARIES = (
    "pytest", "pytest_socket", "hypothesis.strategies", "requests", "cedarpy", "boto3", "moto.dynamodb.models",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """How a test run ended: pytest's exit code, None if it was killed for its time; and what it printed."""

    code: int | None
    output: str


class Forks:
    """The process, by its Python, in `folder`, with `environ`; ends with the `with` block."""

    def __init__(self, python: str, folder: Path, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "tests.mutation.forks"],
            cwd=folder, env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(self, arguments: Sequence[str], seconds: float, *, keep_compiled: bool = False) -> Run:
        """One test run. Raises RuntimeError if the process has ended."""
        stdin, stdout = _open(self._process.stdin), _open(self._process.stdout)
        stdin.write(json.dumps({"arguments": list(arguments), "seconds": seconds, "compile": keep_compiled}) + "\n")
        stdin.flush()
        if not (line := stdout.readline()):
            raise RuntimeError("the process that runs the tests has ended")
        answer = json.loads(line)
        return Run(answer["code"], answer["output"])


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def main() -> None:
    """Answer until there is nothing more to read."""
    sys.dont_write_bytecode = False  # of the libraries, which nobody mutates
    for library in _LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_forked(json.loads(line))) + "\n")
        sys.stdout.flush()


def _forked(asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            _run(asked, output.fileno())
        code = _wait(child, asked["seconds"])
        output.seek(0)
        return {"code": code, "output": output.read()}


def _run(asked: dict[str, Any], output: int) -> None:
    """In the child: never returns."""
    code = 3  # pytest's own for an internal error
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.dont_write_bytecode = not asked["compile"]
        code = int(importlib.import_module("pytest").main(asked["arguments"]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def _wait(child: int, seconds: float) -> int | None:
    """The exit code, or None if it took longer and was killed with all that it started."""
    ended = os.pidfd_open(child)
    try:
        in_time = bool(select.select([ended], [], [], seconds)[0])
    finally:
        os.close(ended)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if in_time else None


if __name__ == "__main__":
    main()
