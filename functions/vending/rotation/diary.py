"""The audit records of one run: each key made, moved or deleted, by its public key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from imburse_auth.credential import CredentialId
from vending.record.audit import AuditRecord, AuditTrail


@dataclass(frozen=True)
class Diary:
    """Writes records in the name of one invocation. `door` is who started it: `secretsmanager` or `schedule`.

    Every method raises AuditUnavailable, and what was not recorded must not be done.
    """

    audit: AuditTrail
    request_id: str
    door: str
    clock: Callable[[], float] = time.time

    def made(self, credential: CredentialId, public_key: str) -> None:
        """A key was made; its public key is known from here on."""
        self._write(credential, {"made": public_key})

    def moves(self, credential: CredentialId, public_key: str, *, instead_of: str) -> None:
        """A key is about to be the one in use."""
        self._write(credential, {"current": public_key, "retired": instead_of})

    def deletes(self, credential: CredentialId, public_key: str, *, why: str) -> None:
        """A key is about to be deleted, as `orphan` or as `retired`."""
        self._write(credential, {"deleted": public_key, "why": why})

    def _write(self, credential: CredentialId, key: dict[str, str]) -> None:
        record = AuditRecord(
            request_id=self.request_id,
            correlation_id=self.request_id,
            function="rotate",
            door=self.door,
            action="rotate",
            credential=str(credential),
            decision="allow",
            outcome="rotated",
            key=key,
        )
        self.audit.write(record, now=self.clock())
