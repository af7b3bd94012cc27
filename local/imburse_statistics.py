"""What the Imburse emulator counted."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Statistics:
    """Counters since the start or the last reset. Tokens are known by their SHA-256 only."""

    exchange_requests: int = 0
    identity_requests: int = 0
    keys_made: int = 0
    keys_deleted: int = 0
    nonces_accepted: int = 0
    tokens_issued: int = 0
    tokens_used: int = 0
    faults_served: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    _fingerprints: set[bytes] = field(default_factory=set, repr=False)

    def count_issued(self, token: str) -> None:
        """Count a token that is about to be answered."""
        self.tokens_issued += 1
        self._fingerprints.add(hashlib.sha256(token.encode()).digest())

    @property
    def tokens_distinct(self) -> int:
        """How many different tokens were issued."""
        return len(self._fingerprints)

    @property
    def nonces_refused(self) -> int:
        """How many requests carried a nonce seen before."""
        return self.refusals["HMAC_NONCE_ALREADY_USED"]

    @property
    def tokens_refused(self) -> int:
        """How many requests carried a token used before."""
        return self.refusals["ACCESS_TOKEN_ALREADY_USED"]

    def as_json(self) -> dict[str, Any]:
        """Answer the body of ``GET /control/statistics``."""
        return {
            "exchangeRequests": self.exchange_requests,
            "identityRequests": self.identity_requests,
            "keysMade": self.keys_made,
            "keysDeleted": self.keys_deleted,
            "noncesAccepted": self.nonces_accepted,
            "noncesRefused": self.nonces_refused,
            "tokensIssued": self.tokens_issued,
            "tokensDistinct": self.tokens_distinct,
            "tokensUsed": self.tokens_used,
            "tokensRefused": self.tokens_refused,
            "faultsServed": self.faults_served,
            "refusals": dict(self.refusals),
        }
