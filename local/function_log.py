"""What the functions wrote: kept in memory for whoever asks, and in a file for whoever reads along."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import IO

from local.lambda_types import LogLine

_KEPT_LINES = 20_000


class FunctionLog:
    """A sink for log lines; the file, if there is one, starts empty."""

    def __init__(self, path: Path | None) -> None:
        self._lines: deque[LogLine] = deque(maxlen=_KEPT_LINES)
        self._file: IO[str] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", buffering=1, encoding="utf-8")

    def __call__(self, line: LogLine) -> None:
        self._lines.append(line)
        if self._file is not None:
            self._file.write(f"{line.function} {line.text}\n")

    def lines(self) -> list[LogLine]:
        """The last lines, oldest first; from any thread."""
        return list(self._lines.copy())  # the copy is one step, which no other thread interrupts

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
