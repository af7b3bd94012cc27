"""An API key from a file or a prompt that does not show it: never from a command line, which a shell and `ps` remember."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imburse_vending.common import CommandError, ExitCode

if TYPE_CHECKING:
    from imburse_auth.api_key import ApiKey

_MOST_BYTES = 65_536  # what a secret may hold
KEY_SHAPE = '{"publicKey": "...", "privateKey": "..."}'

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="FILE", help=f"The key, as its secret holds it: {KEY_SHAPE}; - is standard input."
    ),
]
BodyFile = Annotated[
    Path | None, typer.Option("--body", metavar="FILE", help="The request's body, byte by byte; - is standard input.")
]


@dataclass(frozen=True)
class KeyPair:
    """A key as it was typed or stored: the private one is text that nobody has judged yet."""

    public_key: str
    private_key: str = field(repr=False)

    def api_key(self) -> ApiKey:
        """The key that signs. Raises CommandError, which names the field and the rule."""
        from imburse_auth.api_key import ApiKey
        from imburse_auth.errors import CredentialMisconfigured

        try:
            return ApiKey(self.public_key, self.private_key)
        except CredentialMisconfigured as exc:
            raise CommandError(str(exc), next_step="take it from the secret, as the portal showed it") from None


def read_key(key_file: Path | None) -> KeyPair:
    """The key of the file, or of whoever sits at the terminal. Raises CommandError."""
    if key_file is not None:
        return _from_json(read_bytes(key_file, "--key-file"))
    if not sys.stdin.isatty():
        raise CommandError(
            "no key was given", next_step="--key-file FILE, or a terminal to ask at", code=ExitCode.USAGE
        )
    public_key = typer.prompt("public key", err=True)
    return KeyPair(public_key.strip(), typer.prompt("private key (not shown)", hide_input=True, err=True).strip())


def read_bytes(path: Path, option: str) -> bytes:
    """What the file holds, or standard input for `-`. Raises CommandError."""
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as exc:
        raise CommandError(f"{option} {path}: {exc.strerror or 'cannot be read'}", code=ExitCode.USAGE) from exc


def refuse_two_readers(*paths: Path | None) -> None:
    """Raises CommandError where two options both want standard input."""
    if sum(path is not None and str(path) == "-" for path in paths) > 1:
        raise CommandError("standard input can be read once only", next_step="give a file", code=ExitCode.USAGE)


def _from_json(content: bytes) -> KeyPair:
    try:
        members = json.loads(content[:_MOST_BYTES])
    except (ValueError, RecursionError):
        # `from None`: a JSON error carries the whole text, key included.
        raise CommandError("--key-file: must be JSON", next_step=f"like {KEY_SHAPE}") from None
    if not isinstance(members, dict):
        raise CommandError("--key-file: must be a JSON object", next_step=f"like {KEY_SHAPE}")
    for name in ("publicKey", "privateKey"):
        if not (isinstance(members.get(name), str) and members[name]):
            raise CommandError(f"--key-file: {name} is missing", next_step=f"like {KEY_SHAPE}")
    return KeyPair(members["publicKey"], members["privateKey"])
