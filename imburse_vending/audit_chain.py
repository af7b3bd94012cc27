"""Whether audit records are all there and unchanged, as far as their chains tell (vending/record/audit.py makes them)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from imburse_vending.audit_file import AuditFile

What = Literal["changed", "duplicate", "forged", "missing", "unreadable", "unchained", "unexpected"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written. `line` counts within `file`; `sequence` is where in the chain."""

    what: What
    detail: str
    file: Path | None = None
    line: int | None = None
    environment: str | None = None
    sequence: int | None = None


@dataclass(frozen=True)
class Entry:
    """One record as a link of its chain. `instead` names records whose writing failed, by their hash."""

    file: Path
    line: int
    sequence: int
    previous: str | None
    instead: tuple[str, ...]
    digest: str
    time: str


@dataclass
class Chain:
    """The records of one execution environment by sequence, and beside them those that were written again."""

    environment: str
    entries: dict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    void: list[Entry] = field(default_factory=list)

    def ends(self) -> tuple[Entry, Entry]:
        """The first and the last record."""
        return self.entries[min(self.entries)][0], self.entries[max(self.entries)][0]


@dataclass(frozen=True)
class Expected:
    """What an earlier look saw last of an environment."""

    sequence: int
    digest: str


def digest_of(text: str) -> str:
    """The hash by which the next record names this one."""
    return hashlib.sha256(text.encode()).hexdigest()


def check(
    files: Sequence[AuditFile], *, expected: Mapping[str, Expected] | None = None, partial: bool = False
) -> tuple[list[Chain], list[Finding]]:
    """Follow every chain. `partial`: the files may begin in the middle, so records before an environment's first are no gap.

    Lines may be in any order: it is the sequence that counts.
    """
    chains, findings = _chains(files)
    for chain in chains.values():
        findings += _follow(chain, partial=partial)
    findings += _unreadable(files, chains.values())
    findings += _unexpected(chains, expected or {}, partial=partial)
    findings.sort(key=lambda found: (str(found.file or ""), found.line or 0))
    return list(chains.values()), findings


def _chains(files: Iterable[AuditFile]) -> tuple[dict[str, Chain], list[Finding]]:
    chains: dict[str, Chain] = {}
    findings = []
    for file in files:
        for line in file.lines:
            entry = _entry(file.path, line.number, line.text, line.record)
            if entry is None:
                detail = "says no environment and sequence: forged, or older than the chain"
                findings.append(Finding("unchained", detail, file.path, line.number))
                continue
            environment = line.record["environment"]
            chains.setdefault(environment, Chain(environment)).entries[entry.sequence].append(entry)
    return chains, findings


def _entry(file: Path, number: int, text: str, record: Mapping[str, Any]) -> Entry | None:
    sequence, previous, instead = record.get("sequence"), record.get("previous"), record.get("instead", [])
    if not (isinstance(record.get("environment"), str) and isinstance(sequence, int) and sequence is not True):
        return None
    if sequence < 1 or not isinstance(previous, str | None) or not isinstance(instead, list):
        return None
    voids = tuple(str(one) for one in instead)
    return Entry(file, number, sequence, previous, voids, digest_of(text), str(record.get("time", "")))


def _follow(chain: Chain, *, partial: bool) -> Iterator[Finding]:
    _set_void_aside(chain)
    before: Entry | None = None
    for sequence in sorted(chain.entries):
        entries = chain.entries[sequence]
        entry = _genuine(entries, before, chain.entries.get(sequence + 1, ()))
        for other in entries:
            if other is not entry:
                same = other.digest == entry.digest
                detail = (
                    f"is there twice, see {_at(entry, other)}" if same else f"{_at(entry, other)} has this place too"
                )
                yield _finding("duplicate" if same else "forged", detail, chain, other)
        chain.entries[sequence] = [entry]
        yield from _link(chain, before, entry, partial=partial)
        before = entry


def _set_void_aside(chain: Chain) -> None:
    """A record that failed to be written and is there all the same: the one with its number names it in `instead`."""
    for sequence, entries in chain.entries.items():
        named = {digest for entry in entries for digest in entry.instead}
        void = list({entry.digest: entry for entry in entries if entry.digest in named}.values())
        chain.void += void
        chain.entries[sequence] = [entry for entry in entries if entry not in void]


def _genuine(entries: Sequence[Entry], before: Entry | None, after: Sequence[Entry]) -> Entry:
    """Of several records with one number the one that fits best to its neighbours, else the first."""
    follows = before.digest if before else None
    named = {entry.previous for entry in after}
    return max(entries, key=lambda entry: (entry.digest in named, entry.previous == follows))


def _link(chain: Chain, before: Entry | None, entry: Entry, *, partial: bool) -> Iterator[Finding]:
    gap_from = before.sequence + 1 if before else 1
    if entry.sequence == 1:
        if entry.previous is not None:
            yield _finding("forged", "is the first of its environment and names one before it", chain, entry)
    elif entry.previous is None:
        yield _finding("forged", "names no record before it, and is not the first of its environment", chain, entry)
    if entry.sequence > gap_from:
        if before is None and partial:
            return
        last = entry.sequence - 1
        which = f"record {last} is" if last == gap_from else f"records {gap_from} to {last} are"
        yield _finding("missing", f"{which} not there before it", chain, entry)
    elif before is not None and entry.previous not in (None, before.digest):
        detail = (
            f"is not what record {entry.sequence} ({_at(entry, before)}) names: one of the two was changed or replaced"
        )
        yield _finding("changed", detail, chain, before)


def _unreadable(files: Iterable[AuditFile], chains: Iterable[Chain]) -> Iterator[Finding]:
    """Lines that are no JSON, but for the beginning of a record whose writing failed: the one instead of it says so."""
    begun = [
        f'{{"event": "audit", "environment": "{chain.environment}", "sequence": {sequence}, '
        for chain in chains
        for sequence, entries in chain.entries.items()
        if any(entry.instead for entry in entries)
    ]
    for file in files:
        for number, text in file.unreadable:
            if not any(text.startswith(head) or head.startswith(text) for head in begun):
                yield Finding("unreadable", "begins like a record and is not JSON", file.path, number)


def _unexpected(chains: Mapping[str, Chain], expected: Mapping[str, Expected], *, partial: bool) -> Iterator[Finding]:
    """What an earlier look saw, and these files have no more."""
    for environment, seen in expected.items():
        chain = chains.get(environment)
        if chain is None:
            if not partial:
                detail = f"no record of it is there any more, of {seen.sequence}"
                yield Finding("unexpected", detail, None, None, environment, seen.sequence)
            continue
        # Not those that are void by now: a line behind the last can make that one void, and it was whole when it was seen.
        entries = chain.entries.get(seen.sequence, ())
        first, last = chain.ends()
        if any(entry.digest == seen.digest for entry in entries) or (partial and first.sequence > seen.sequence):
            continue
        detail = "was the last when it was looked at before, and is another now"
        if last.sequence < seen.sequence:
            detail = f"is the last now, where there were {seen.sequence} before"
        at = next(iter(chain.entries.get(seen.sequence, ())), last)
        yield _finding("unexpected", detail, chain, at)


def _finding(what: What, detail: str, chain: Chain, entry: Entry) -> Finding:
    return Finding(what, detail, entry.file, entry.line, chain.environment, entry.sequence)


def _at(entry: Entry, other: Entry) -> str:
    return f"line {entry.line}" if entry.file == other.file else f"{entry.file}, line {entry.line}"
