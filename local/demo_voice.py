"""How the demo speaks: a few lines a step, in colour on a terminal and plain anywhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

# Anything that looks like a token, wherever it turns up: the demo must be as discreet as the system it shows.
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{9}[A-Za-z0-9_.-]+")


def abbreviated(text: str) -> str:
    """Answer ``text`` with every token cut to its first 12 characters."""
    return _TOKEN.sub(lambda token: f"{token[0][:12]}…", text)


class StepFailed(Exception):
    """A step did not do what it should; the message says what came instead."""


def expect(actual: object, expected: object, what: str) -> None:
    """Raise StepFailed unless the two are equal."""
    if actual != expected:
        raise StepFailed(abbreviated(f"{what}: expected {expected!r}, got {actual!r}"))


class Voice:
    """Prints the story."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0

    @property
    def step_name(self) -> str:
        """The number of the step being told."""
        return f"step {self._steps}" if self._steps else "the start"

    def title(self, name: str, *lines: str) -> None:
        self._say(Text(name, "bold"))
        for line in lines:
            self._say(Text(line, "dim"))

    def started(self, seconds: float) -> None:
        self.hint(f"Started in {seconds:.1f} s.")

    def step(self, title: str, why: str) -> None:
        self._steps += 1
        self._say()
        self._say(Text.assemble((f"{self._steps}  ", "bold cyan"), (title, "bold")))
        self._say(Text(f"   {why}", "dim"))

    def asks(self, text: str) -> None:
        self._line("→", "cyan", text)

    def gets(self, text: str) -> None:
        self._line("←", "cyan", text)

    def proves(self, text: str) -> None:
        self._line("✓", "bold green", text, "green")

    def document(self, document: Mapping[str, Any]) -> None:
        for name, value in document.items():
            shown = value if isinstance(value, str) else json.dumps(value)
            self._say(Text.assemble((f"     {name:<15}", "cyan"), abbreviated(shown)))

    def fails(self, text: str) -> None:
        self._say()
        self._say(Text.assemble((f"✗ {self.step_name} failed: ", "bold red"), abbreviated(text)))

    def ends(self, text: str) -> None:
        self._say()
        self._say(Text(abbreviated(text), "bold"))

    def hint(self, text: str) -> None:
        self._say(Text(text, "dim"))

    def _line(self, mark: str, mark_style: str, text: str, style: str = "") -> None:
        self._say(Text.assemble((f"   {mark} ", mark_style), (abbreviated(text), style)))

    def _say(self, text: Text | str = "") -> None:
        # Never wrapped by us: a terminal folds long lines itself, and a pipe gets each line whole.
        self._console.print(text, soft_wrap=True)
