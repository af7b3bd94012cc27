"""Audit records out of whatever the functions' log was saved as; other log lines in between are passed over.

| FILE | what made it |
|---|---|
| `<function> <json>` a line | the local stack's `.local/functions.log` |
| one JSON record a line, or anything before it | `aws logs tail`, an S3 export (`<time> <message>`, also gzipped), `jq -c` |
| a document with `events`, or their list | `aws logs filter-log-events`, `get-log-events` |
| a document with `results`, or their list | `aws logs get-query-results`, the console's Logs Insights |
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imburse_vending.common import CommandError, ExitCode

_GZIP = b"\x1f\x8b"
_OFTEN_ALIKE = 48  # characters: names, ARNs of roles, environments; not what is different each time, such as hashes
_AUDIT = re.compile(r'"event"\s*:\s*"audit"')


@dataclass(frozen=True)
class AuditLine:
    """One record. `number` counts the lines of the file, or the entries of its document, from 1.

    `text` is exactly what the function wrote, without the newline: its hash stands in the next record. `record` is its JSON.
    """

    number: int
    text: str
    record: dict[str, Any]


@dataclass(frozen=True)
class AuditFile:
    """What a file holds: the records in its own order, and the lines that look like one and are not JSON."""

    path: Path
    lines: tuple[AuditLine, ...]
    unreadable: tuple[tuple[int, str], ...]


def read(path: Path) -> list[AuditLine]:
    """The records of a file, in its own order; what cannot be read is left out. Raises CommandError if the file cannot."""
    return list(scan(path).lines)


def scan(path: Path) -> AuditFile:
    """The records of a file, and the lines that must have been one. Raises CommandError if the file cannot be read."""
    lines: list[AuditLine] = []
    unreadable: list[tuple[int, str]] = []
    for number, message in enumerate(_messages(_text(path)), start=1):
        found = _record(message)
        if isinstance(found, dict):
            if found.get("event") == "audit":
                lines.append(AuditLine(number, message, found))
        elif _AUDIT.search(message):
            unreadable.append((number, message))
    return AuditFile(path, tuple(lines), tuple(unreadable))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except OSError as exc:
        raise CommandError(f"{path}: {exc.strerror or 'is not a whole gzip file'}", code=ExitCode.USAGE) from exc
    except (EOFError, zlib.error) as exc:
        raise CommandError(f"{path}: is not a whole gzip file", code=ExitCode.USAGE) from exc
    # A byte that is not UTF-8 can be in no record: it turns into one that makes the hash differ, and hides nothing.
    return content.decode("utf-8-sig", "replace")


def _messages(text: str) -> Iterator[str]:
    """What stands in each entry of a document, or in each line behind whatever a tool put before it (a time, a name)."""
    entries = _entries(text)
    for message in _split(text) if entries is None else entries:
        start = message.find("{")
        yield message[max(start, 0) :].rstrip("\r\n")


def _split(text: str) -> Iterator[str]:
    """The lines, one after the other: with all of them beside the text, a large file would be in memory once more."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _entries(text: str) -> Iterable[str] | None:
    """The messages of a document of CloudWatch, None if the text is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict):
        document = next((document[name] for name in ("events", "results") if name in document), None)
    return [_message(entry) for entry in document] if isinstance(document, list) else None


def _message(entry: object) -> str:
    """The message in one entry; text of its own, a member, or a list of fields."""
    if isinstance(entry, list):
        entry = {field.get("field"): field.get("value") for field in entry if isinstance(field, dict)}
    if isinstance(entry, dict):
        entry = next((entry[name] for name in ("message", "@message") if name in entry), entry)
    # The Logs Insights console unfolds a message that is JSON. What a function wrote is what json.dumps makes of it.
    return entry if isinstance(entry, str) else json.dumps(entry)


def _shared(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which what nearly every record says alike is in memory once: a third of the whole."""
    return {
        sys.intern(name): sys.intern(value) if type(value) is str and len(value) <= _OFTEN_ALIKE else value
        for name, value in members
    }


_DECODER = json.JSONDecoder(object_pairs_hook=_shared)


def _record(message: str) -> object:
    try:
        return _DECODER.decode(message)
    except (ValueError, RecursionError):
        return None
