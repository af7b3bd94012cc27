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

_BUDGET_UNAVAILABLE = re.compile(r'"BudgetUnavailable": ?\[')


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
        )


@dataclass
class Trail:
    """All records. `findings` is what `imburse-vending audit verify` has to say of their chains, `chains` how many those are.

    `sources` counts tokens by where they came from, `budgets_unread` the visits that passed because their budget's counter
    did not answer.
    """

    by_request: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    by_token: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    findings: list[str] = field(default_factory=list)
    chains: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    budgets_unread: int = 0

    @classmethod
    def of(cls, records: Iterable[tuple[str, Record]]) -> Trail:
        """Of (request id, record) each."""
        trail = cls()
        for request_id, record in records:
            trail.by_request[request_id].append(record)
            for token in record.tokens:
                trail.by_token[token].append(record)
        return trail


def read_trail(log: Path) -> Trail:
    """The trail in a log of the functions."""
    file = scan(log)
    trail = Trail.of((line.record["requestId"], Record.of(line.record)) for line in file.lines)
    chains, findings = audit_chain.check([file])
    trail.chains = len(chains)
    trail.sources = Counter(token["source"] for line in file.lines for token in line.record.get("tokens", []))
    trail.findings = [f"{found.what} in line {found.line}: {found.detail}" for found in findings]
    trail.budgets_unread = len(_BUDGET_UNAVAILABLE.findall(log.read_text(encoding="utf-8")))
    return trail
