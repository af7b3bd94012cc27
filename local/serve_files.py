"""The files that `make serve` is given: every mistake is one line that names the file and the rule, and shows no value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from local.api_caller import LocalCaller

_SECRET_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
_MAX_SECRET_BYTES = 65_536
_ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PRINCIPAL = re.compile(
    r"arn:aws[a-z-]*:(iam::\d{12}:role/[\w+=,.@/-]+|sts::\d{12}:assumed-role/[\w+=,.@-]+/[\w+=,.@-]+)", re.ASCII
)


class FileError(Exception):
    """A file cannot be used; the message is one line."""


def read_secrets(path: Path) -> dict[str, str]:
    """SECRETS: `{"imburse/sandbox/tenant-a": {...}}`, to secret name and SecretString. Raises FileError.

    A value that is no credential is stored all the same, and text as it is: to judge it is the functions' job.
    """
    secrets: dict[str, str] = {}
    for name, value in _object("SECRETS", path).items():
        if not _SECRET_NAME.fullmatch(name):
            raise FileError(f"SECRETS {path}: {name!r}: a secret's name has 1 to 512 letters, digits and /_+=.@-")
        text = value if isinstance(value, str) else json.dumps(value)
        if not 1 <= len(text.encode(errors="surrogatepass")) <= _MAX_SECRET_BYTES:
            raise FileError(f"SECRETS {path}: {name}: the value must have 1 to {_MAX_SECRET_BYTES} bytes")
        secrets[name] = text
    return secrets


def read_callers(path: Path) -> dict[str, LocalCaller]:
    """CALLERS: `{"<access key id>": {"secretAccessKey": "...", "arn": "arn:aws:iam::...:role/..."}}`. Raises FileError."""
    callers: dict[str, LocalCaller] = {}
    for key_id, value in _object("CALLERS", path).items():
        where = f"CALLERS {path}: {key_id!r}"
        if not _ACCESS_KEY_ID.fullmatch(key_id):
            raise FileError(f"{where}: an access key id has 1 to 128 letters, digits, '_', '.' or '-'")
        if not isinstance(value, dict) or set(value) != {"secretAccessKey", "arn"}:
            raise FileError(f"{where}: must be an object with secretAccessKey and arn, and nothing else")
        secret, arn = value["secretAccessKey"], value["arn"]
        if not (isinstance(secret, str) and secret.isascii() and secret.isprintable() and secret):
            raise FileError(f"{where}: secretAccessKey must be ASCII text that is not empty")
        if not isinstance(arn, str) or not _PRINCIPAL.fullmatch(arn):
            raise FileError(f"{where}: arn must be the ARN of an IAM role or of an assumed role")
        callers[key_id] = LocalCaller(key_id, secret, arn)
    return callers


def check_policy(path: Path) -> Path:
    """POLICY: a Cedar file; what it says is checked by the functions, against the schema. Raises FileError."""
    _text("POLICY", path)
    return path


def _object(variable: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(variable, path), object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as exc:
        # `from None`, here and below: the cause holds the whole text.
        raise FileError(f"{variable} {path}: must be JSON: line {exc.lineno}, column {exc.colno}: {exc.msg}") from None
    except (ValueError, RecursionError) as exc:
        reason = exc if isinstance(exc, _DuplicateError) else "a number or the nesting is too large"
        raise FileError(f"{variable} {path}: {reason}") from None
    if not isinstance(value, dict):
        raise FileError(f"{variable} {path}: must be a JSON object")
    return value


class _DuplicateError(ValueError):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateError("a name stands twice in one object")
    return result


def _text(variable: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        raise FileError(f"{variable} {path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise FileError(f"{variable} {path}: must be UTF-8 text") from None
