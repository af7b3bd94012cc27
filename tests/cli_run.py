"""`imburse-vending` run in this process as the shell runs it, and a vending machine for it that is none."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from unittest import mock

import typer

from imburse_auth.client import Vended
from imburse_vending import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class Terminal(io.TextIOWrapper):
    """A standard stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(*arguments: str, stdin: bytes = b"", terminal: bool = False) -> Done:
    """Exit code and what was printed; with `terminal`, all three streams say they are one."""
    stream = Terminal if terminal else io.TextIOWrapper
    given, out, err = (stream(io.BytesIO(content), encoding="utf-8", newline="") for content in (stdin, b"", b""))
    with (
        mock.patch.object(sys, "argv", ["imburse-vending", *arguments]),
        mock.patch.object(sys, "stdin", given),
        mock.patch.object(main, "app", _command()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main.main()
            code: object = 0
        except SystemExit as end:
            code = end.code
    texts = []
    for written in (out, err):
        written.flush()
        assert isinstance(written.buffer, io.BytesIO)
        texts.append(written.buffer.getvalue().decode("utf-8", "replace"))
    return Done(int(str(code or 0)), *texts)


@functools.cache
def _command() -> Callable[[], object]:
    """The app as typer makes it of the functions: it does so at each call, which is most of what a test would take."""
    return typer.main.get_command(main.app)


def vended(token: str = "token-1", *, account: str = "account-1", base_url: str = "https://api.imburse.test") -> Vended:
    headers = {"Authorization": f"Bearer {token}", "x-account-id": account, "x-tenant-id": "tenant-1"}
    return Vended("sandbox/tenant-a", 2_000_000_000, base_url, headers, token, 1800)


@dataclass
class FakeSource:
    """Vends what it was given, or raises it; `asked` is what for."""

    outcomes: list[list[Vended] | Exception] = field(default_factory=lambda: [[vended()]])
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:
        self.asked.append((credential, count, minimum_lifetime_seconds))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
