"""The audit records of a run, looked up by request and by token."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from imburse_vending import audit_chain
from imburse_vending.audit_file import scan

# The metrics of a visit that passed because its budget's counter did not answer: when, by which function, with how many tokens.
_UNCOUNTED = re.compile(
    r'"Timestamp": ?(\d+).*"service": ?"(\w+)".*"TokensVended": ?\[([\d.]+)\].*"BudgetUnavailable": ?\['
)
_NOTED_LATE_SECONDS = 1.0  # at most: after the visit was looked for in its budget, so perhaps in the next minute
_DRY = re.compile(r'"Timestamp": ?(\d+).*"PoolMiss": ?\[')


@dataclass(frozen=True)
class Record:
    """What a record says that can be compared; `time` in seconds since the epoch."""

    time: float
    environment: str
    caller: str | None
    credential: str | None
    error: str | None
    tokens: tuple[str, ...]
    failures: dict[str, int]
    sources: tuple[str, ...] = ()

    @classmethod
    def of(cls, members: dict[str, Any]) -> Record:
        """From the JSON of one."""
        return cls(
            datetime.fromisoformat(members["time"]).timestamp(),
            str(members.get("environment")),
            members.get("caller"),
            members.get("credential"),
            members.get("error"),
            tuple(token["sha256"] for token in members.get("tokens", [])),
            members.get("failures", {}),
            tuple(token["source"] for token in members.get("tokens", [])),
        )


@dataclass
class Trail:
    """All records. `findings` is what `imburse-vending audit verify` has to say of their chains, `chains` how many those are.

    `uncounted` is how many tokens each function may have vended past a budget in each minute since the epoch, because the
    counter did not answer. `dry` is when (seconds since the epoch) the pool answered that it had not as many as were wanted.
    """

    by_request: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    by_token: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    findings: list[str] = field(default_factory=list)
    chains: int = 0
    uncounted: Counter[tuple[str, int]] = field(default_factory=Counter)
    dry: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[tuple[str, Record]]) -> Trail:
        """Of (request id, record) each."""
        trail = cls()
        for request_id, record in records:
            trail.by_request[request_id].append(record)
            for token in record.tokens:
                trail.by_token[token].append(record)
        return trail

    @property
    def sources(self) -> Counter[str]:
        """Where tokens came from, and how many."""
        records = (record for records in self.by_request.values() for record in records)
        return Counter(source for record in records for source in record.sources)


def read_trail(log: Path) -> Trail:
    """The trail in a log of the functions."""
    file = scan(log)
    trail = Trail.of((line.record["requestId"], Record.of(line.record)) for line in file.lines)
    chains, findings = audit_chain.check([file])
    trail.chains = len(chains)
    trail.findings = [f"{found.what} in line {found.line}: {found.detail}" for found in findings]
    text = log.read_text(encoding="utf-8")
    trail.uncounted = uncounted(text)
    trail.dry = [int(milliseconds) / 1000 for milliseconds in _DRY.findall(text)]
    return trail


def uncounted(log: str) -> Counter[tuple[str, int]]:
    """`Trail.uncounted` by the metrics in a log; a line at the turn of a minute stands for both."""
    found: Counter[tuple[str, int]] = Counter()
    for milliseconds, function, tokens in _UNCOUNTED.findall(log):
        at = int(milliseconds) / 1000
        for minute in {int(at // 60), int((at - _NOTED_LATE_SECONDS) // 60)}:
            found[function, minute] += int(float(tokens))
    return found
