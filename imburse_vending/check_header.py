"""`imburse-vending check`: what is wrong with an Hmac header that Imburse refuses."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imburse_vending import common
from imburse_vending.common import CommandError, ExitCode
from imburse_vending.header_parts import WINDOW_SECONDS, Finding, Parts, take_apart
from imburse_vending.header_recipes import find
from imburse_vending.key_input import BodyFile, KeyFile, KeyPair, read_bytes, read_key, refuse_two_readers
from imburse_vending.when import how_long

if TYPE_CHECKING:
    from rich.text import Text

_MOST_CHARACTERS = 16_384

EXAMPLES = """[bold]Examples[/bold]

imburse-vending check 'Hmac 4b1f...:0f8f...:1614350382:+kfc...='    # what can be seen without the key

pbpaste | imburse-vending check - --key-file tenant-a.secret.json --body order.json    # and how it was signed

imburse-vending check 'Hmac ...' --ask    # asks for the key, and does not show it

Exit codes: 0 nothing is wrong, 1 something is, 2 called wrongly.
"""


def check(
    header: Annotated[str, typer.Argument(metavar="HEADER", help="Hmac publicKey:nonce:timestamp:signature, or -.")],
    key_file: KeyFile = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask for the key at the terminal.")] = False,  # noqa: FBT002
    body: BodyFile = None,
    *,
    as_json: common.AsJson = False,
) -> None:
    """Say what is wrong with an Hmac header.

    With the key, sign anew by the right recipe and the usual wrong ones, and say which makes this signature. Without a
    file for --body, the request had no body. A header is no key, but good for one request until it is five minutes old: `-`
    reads it from standard input, past the shell's history.
    """
    refuse_two_readers(key_file, body, Path("-") if header == "-" else None)
    argument = header != "-"
    if not argument:
        header = sys.stdin.buffer.read(_MOST_CHARACTERS).decode("utf-8", "replace")
    header = header.encode("utf-8", "replace").decode()[
        :_MOST_CHARACTERS
    ]  # an argument may hold bytes that are no text
    if not header.strip():
        raise CommandError("HEADER is empty", code=ExitCode.USAGE)
    parts, findings = take_apart(header, now=time.time())
    if parts is not None and (key_file is not None or ask):
        content = b"" if body is None else read_bytes(body, "--body")
        findings += with_key(parts, read_key(key_file), content)
    wrong = any(finding.wrong for finding in findings)
    data = {
        "wrong": wrong,
        "findings": [{"part": one.part, "says": one.says, "fix": one.fix} for one in findings],
    }
    common.emit(data, _shown(findings), as_json=as_json)
    if argument and parts is not None:
        _warn(parts)
    if not as_json and not wrong and parts is not None and key_file is None and not ask:
        common.note("its form is right; whether its signature is, can be said with the key only: --key-file or --ask")
    if wrong:
        raise typer.Exit(ExitCode.FAILED)


def with_key(parts: Parts, key: KeyPair, body: bytes) -> list[Finding]:
    """What signing anew says, by the right recipe and by the wrong ones."""
    findings = []
    if parts.public_key != key.public_key:
        findings.append(
            Finding("key", "another public key than the header's", "sign with the key that the header names")
        )
    recipe = find(parts, key, body)
    if recipe is None:
        fix = "another private key, another body, or a mistake that is not known here: see `imburse-vending sign`"
        findings.append(Finding("recipe", "no recipe makes this signature with this key", fix))
    elif not recipe.mistakes:
        findings.append(Finding("recipe", "right: this key makes this signature"))
    findings += [
        Finding("recipe", "this key makes this signature, with a mistake", mistake)
        for mistake in (recipe.mistakes if recipe else ())
    ]
    return findings


def _shown(findings: list[Finding]) -> Text:
    from rich.text import Text

    marks = {True: ("wrong", "bold red"), False: ("ok", "green")}
    return Text("\n").join(common.verdict(*marks[one.wrong], one.part, one.says, one.fix) for one in findings)


def _warn(parts: Parts) -> None:
    """An argument is in the shell's history: as long as the header is good, whoever reads that can use it."""
    left = (parts.seconds or 0) + WINDOW_SECONDS - int(time.time())
    if 0 < left <= 2 * WINDOW_SECONDS:
        common.note(
            f"your shell's history has this header, which is good for another {how_long(left)}; - reads it from a pipe"
        )
