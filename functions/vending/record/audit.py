"""The audit trail: one JSON line a visit, written before the answer leaves. It cannot be switched off.

It does not go through the log: no level, no filter and no sampling stands between a hand-out and its record.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from vending.errors import AuditUnavailable


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass
class AuditRecord:
    """Who asked for what through which door, what was decided by which rules, and what came of it.

    Fields are filled in as a visit goes on; what is still None when it ends was never known. Tokens stand in it by their
    SHA-256 and expiry.
    """

    request_id: str
    correlation_id: str
    function: str
    door: str
    caller: str | None = None
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


class AuditTrail:
    """Writes records, by default to standard output, which Lambda keeps in the function's log group."""

    def __init__(self, write: Callable[[str], None] = _to_stdout) -> None:
        self._write = write

    def write(self, record: AuditRecord, *, now: float) -> None:
        """Write one record. Raises AuditUnavailable if that fails, and then nothing may be handed out."""
        members = {
            "event": "audit",
            "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "requestId": record.request_id,
            "correlationId": record.correlation_id,
            "function": record.function,
            "door": record.door,
            "caller": record.caller,
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
        }
        try:
            self._write(json.dumps({name: value for name, value in members.items() if value not in (None, [], {})}))
        except (OSError, ValueError) as exc:
            raise AuditUnavailable("the audit record could not be written", reason=type(exc).__name__) from exc
