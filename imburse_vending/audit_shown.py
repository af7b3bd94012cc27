"""Which audit records answer "who had tokens of this credential between then and then", and what was done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imburse_vending.audit_chain import digest_of
from imburse_vending.audit_file import AuditFile, AuditLine

_WHATS = {"vended": "vended", "inspected": "inspected"}


@dataclass(frozen=True)
class Wanted:
    """What is asked for; None is any. `token_sha256` may be the beginning of one, in lower case."""

    credential: str | None = None
    begin: datetime | None = None
    end: datetime | None = None
    caller: str | None = None
    token_sha256: str | None = None


@dataclass(frozen=True)
class Row:
    """One answer. `what` is `vended`, `inspected`, `freeze`, `thaw`, `key made`, `key moved` or `key deleted`.

    The token of an `inspected` one was used here and not handed out. `not written` is a record whose writing failed, as the one
    that takes its place says: nothing was handed out on it.
    """

    file: Path
    line: int
    time: datetime
    what: str
    record: Mapping[str, Any] = field(repr=False)
    tokens: tuple[tuple[str, datetime], ...] = ()

    @property
    def expires(self) -> datetime | None:
        """When the last of its tokens is dead, used or not."""
        return max((expires for _, expires in self.tokens), default=None)


def rows(files: Iterable[AuditFile], wanted: Wanted) -> list[Row]:
    """What is wanted, by time. A record whose writing failed is there too: who adds a line that says so must hide none."""
    files = list(files)
    # Only the record with the same place makes one void, as `verify` sees it: else a made-up environment could hide any.
    void = {
        (*_place(line), digest)
        for file in files
        for line in file.lines
        for digest in _texts(line.record.get("instead"))
    }
    found = [
        replace(row, what="not written") if (*_place(line), digest_of(line.text)) in void else row
        for file in files
        for line in file.lines
        if _is_of(line.record, wanted)
        for row in _rows(file.path, line)
        if _is_wanted(row, wanted)
    ]
    return sorted(found, key=lambda row: (row.time, str(row.file), row.line))


def _place(line: AuditLine) -> tuple[str, str]:
    return str(line.record.get("environment")), str(line.record.get("sequence"))


def _is_of(record: Mapping[str, Any], wanted: Wanted) -> bool:
    if wanted.caller is not None and record.get("caller") != wanted.caller:
        return False
    brake = record.get("brake")
    if wanted.credential is None or (isinstance(brake, dict) and brake.get("scope") == "everything"):
        return True
    return bool(record.get("credential") == wanted.credential)


def _rows(file: Path, line: AuditLine) -> Iterator[Row]:
    record = line.record
    time = _time(record.get("time"), datetime.fromisoformat)
    if time is None:
        return
    outcome, brake, key = record.get("outcome"), record.get("brake"), record.get("key")
    if isinstance(brake, dict) and outcome in ("operated", "failed"):
        order = str(brake.get("operate", "operate"))
        yield Row(file, line.number, time, order if outcome == "operated" else f"{order} failed", record)
    elif isinstance(key, dict):
        did = "moved" if "current" in key else next(iter(key), "?")
        yield Row(file, line.number, time, f"key {did}" + ("" if outcome != "failed" else ", failed"), record)
    elif outcome in _WHATS or record.get("tokens"):
        yield Row(file, line.number, time, _WHATS.get(str(outcome), "not given"), record, tuple(_tokens(record)))


def _is_wanted(row: Row, wanted: Wanted) -> bool:
    if wanted.token_sha256 is not None and not any(
        fingerprint.startswith(wanted.token_sha256) for fingerprint, _ in row.tokens
    ):
        return False
    # Who got a token before `begin` still had it then, unless it was dead already.
    last = max(row.time, row.expires or row.time)
    return (wanted.end is None or row.time <= wanted.end) and (wanted.begin is None or last >= wanted.begin)


def _tokens(record: Mapping[str, Any]) -> Iterator[tuple[str, datetime]]:
    tokens = record.get("tokens")
    for token in tokens if isinstance(tokens, list) else ():
        if isinstance(token, dict):
            expires = _time(token.get("expires"), lambda seconds: datetime.fromtimestamp(seconds, UTC))
            # What cannot be read was tampered with, and is shown all the same: as one that never dies.
            yield str(token.get("sha256", "")), expires or datetime.max.replace(tzinfo=UTC)


def _time(value: object, read: Callable[[Any], datetime]) -> datetime | None:
    try:
        moment = read(value)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
