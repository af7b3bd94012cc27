"""The audit trail: one JSON line a visit, written before the answer leaves. It cannot be switched off.

It does not go through the log: no level, no filter and no sampling stands between a hand-out and its record.

The records of one execution environment are a chain: `environment` is its id, `sequence` counts 1, 2, ..., and `previous` is
the SHA-256 of the record before, of its exact text without the newline; the first has none. `audit verify` follows it.

When writing fails, the record may stand there whole, in part or not at all. The next one then takes over its number and its
`previous`, begins on a line of its own, and names the hash of what failed in `instead`: the chain is whole either way, and
whoever finds the failed record too knows that nothing was handed out on it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from vending.errors import AuditUnavailable

_KEPT_FAILURES = 16  # in a row; an output that fails more often will not work again


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass
class AuditRecord:
    """Who asked for what through which door, what was decided by which rules, and what came of it.

    Fields are filled in as a visit goes on; what is still None when it ends was never known. Tokens stand in it by their
    SHA-256 and expiry, a caller's proof by the SHA-256 of its signature, and `via` is "proof" once STS has confirmed it.
    `through` is the alias that was invoked, where the caller is another or was never known.
    """

    request_id: str
    correlation_id: str
    function: str
    door: str
    caller: str | None = None
    through: str | None = None
    via: str | None = None
    proof: str | None = None
    source_ip: str | None = None
    vpce: str | None = None
    action: str | None = None
    credential: str | None = None
    count: int | None = None
    decision: str = "deny"
    policies: tuple[str, ...] = ()
    outcome: str = "failed"
    error: str | None = None
    upstream: dict[str, Any] | None = None
    tokens: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    brake: dict[str, str] | None = None
    key: dict[str, str] | None = None


class AuditTrail:
    """Writes records, by default to standard output, which Lambda keeps in the function's log group. Safe for threads."""

    def __init__(self, write: Callable[[str], None] = _to_stdout) -> None:
        self._write = write
        self._lock = threading.Lock()
        # Made at the first write, never during init: SnapStart's one snapshot is taken when init has ended, and every
        # environment restored from it would have what init made. Handlers, who write, run after the restore.
        self._environment: str | None = None
        self._sequence = 1
        self._previous: str | None = None
        self._failed: deque[str] = deque(maxlen=_KEPT_FAILURES)

    def write(self, record: AuditRecord, *, now: float) -> None:
        """Write one record. Raises AuditUnavailable if that fails, and then nothing may be handed out."""
        members = {
            "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "requestId": record.request_id,
            "correlationId": record.correlation_id,
            "function": record.function,
            "door": record.door,
            "caller": record.caller,
            "through": record.through,
            "via": record.via,
            "proof": record.proof,
            "sourceIp": record.source_ip,
            "vpce": record.vpce,
            "action": record.action,
            "credential": record.credential,
            "count": record.count,
            "decision": record.decision,
            "policies": list(record.policies),
            "outcome": record.outcome,
            "error": record.error,
            "upstream": record.upstream,
            "tokens": record.tokens,
            "failures": record.failures,
            "brake": record.brake,
            "key": record.key,
        }
        try:
            with self._lock:
                self._append(members)
        except Exception as exc:  # a bug too: without its record nothing leaves
            raise AuditUnavailable("the audit record could not be written", reason=type(exc).__name__) from exc

    def _append(self, members: dict[str, Any]) -> None:
        self._environment = self._environment or secrets.token_hex(16)
        chain = {
            "event": "audit",
            "environment": self._environment,
            "sequence": self._sequence,
            "previous": self._previous,
            "instead": list(self._failed),
        }
        line = json.dumps({name: value for name, value in {**chain, **members}.items() if value not in (None, [], {})})
        digest = hashlib.sha256(line.encode()).hexdigest()
        try:
            self._write("\n" + line if self._failed else line)
        except BaseException:
            self._failed.append(digest)
            raise
        self._sequence, self._previous = self._sequence + 1, digest
        self._failed.clear()
