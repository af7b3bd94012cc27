"""What a caller writes down of each visit: no token, only its SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.load.plan import Door


@dataclass
class Visit:
    """One question and what came of it. Times are seconds since the epoch.

    `caller` is the number of the caller and `kind` its name. `code` is None where tokens (or what was asked) came, else the
    code of the error table, or what stands in for it: `api:<status>`, `invoke:<error type>`, `client:<exception>`. `tokens`
    are fingerprints, `uses` says for each token that was used what the emulator answered, `failures` what a batch lacks
    by code. `wrong` names what is not as documented.
    """

    caller: int
    kind: str
    door: Door
    credential: str
    started: float
    ended: float = 0.0
    request_id: str | None = None
    code: str | None = None
    status: int | None = None
    error_type: str | None = None
    retry_after: int | None = None
    tokens: list[str] = field(default_factory=list)
    uses: list[tuple[str, str]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def minutes(self) -> range:
        """The minutes since the epoch in which it was under way; budgets are counted by the minute."""
        return range(int(self.started // 60), int(self.ended // 60) + 1)

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def of(cls, line: str) -> Visit:
        """From such a line."""
        members: dict[str, Any] = json.loads(line)
        return cls(**members)


def fingerprint(token: str) -> str:
    """What stands for a token everywhere here, and in the audit record."""
    return hashlib.sha256(token.encode()).hexdigest()
