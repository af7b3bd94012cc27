"""The sweep: deletes keys that were replaced longer ago than anybody can hold them, and cleans up after rotations given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imburse_auth.credential import CredentialId
from imburse_auth.errors import CredentialNotFound
from imburse_auth.retry import Deadline
from vending.rotation.diary import Diary
from vending.rotation.lease import Leases, RotationFailed
from vending.rotation.notes import Intent, Notes, Retired
from vending.rotation.orphans import SETTLED_SECONDS
from vending.rotation.steps import Steps
from vending.rotation.vendor import Vendor, tenant_of
from vending.rotation.versions import CURRENT, PENDING, Versions
from vending.supply.pool import Pool
from vending.supply.shared import Shared

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_IN_USE = {CURRENT, PENDING}


def keys_in_use(
    secrets_manager: SecretsManagerClient,
    credentials: Iterable[CredentialId],
    stages: set[str] | None = None,
    *,
    before_each: Callable[[], None] = lambda: None,
) -> set[str]:
    """Every public key in a version with one of these stages, or with any, of any credential.

    `before_each` is called before each is read, which takes three calls or more. Raises RotationFailed if one of them cannot
    be read: what is not known to be free must not be deleted.
    """
    found: set[str] = set()
    for credential in credentials:
        before_each()
        try:
            staged = Versions(secrets_manager, credential).public_keys()
        except CredentialNotFound:
            continue  # deleted since it was listed
        except Exception as exc:
            raise RotationFailed(
                f"{credential}: its secret cannot be read ({type(exc).__name__}), so no key is deleted"
            ) from exc
        found |= {key for key, has in staged.items() if stages is None or has & stages}
    return found


@dataclass(frozen=True)
class Sweep:
    """Deletes one key at a time, under its tenant's lease. `grace_seconds` is from when the key was replaced."""

    secrets_manager: SecretsManagerClient
    credentials: Callable[[], Iterable[CredentialId]]
    vendor: Vendor
    notes: Notes
    leases: Leases
    steps: Steps
    pool: Pool
    shared: Shared
    grace_seconds: int
    clock: Callable[[], float] = time.time

    def waiting(self) -> list[Retired]:
        """Every key that is still to be deleted. Raises TableUnavailable."""
        return self.notes.retired()

    def due(self, retired: Retired) -> bool:
        """Whether nobody can hold the key any more."""
        return retired.retired_at + self.grace_seconds <= self.clock()

    def given_up(self) -> list[Intent]:
        """Intents that no rotation is at just now. Raises TableUnavailable."""
        return [intent for intent in self.notes.intents() if self.clock() - intent.posted_at > SETTLED_SECONDS]

    def tidy(self, intent: Intent, *, diary: Diary, deadline: Deadline) -> None:
        """Delete what such a rotation left over. Raises what a step raises."""
        self.steps.tidy(intent, diary=diary, deadline=deadline)

    def in_use(self) -> set[str]:
        """The keys that callers vend with, or soon will, of all credentials. Raises RotationFailed."""
        return keys_in_use(self.secrets_manager, self.credentials(), _IN_USE)

    def delete(self, retired: Retired, in_use: set[str], *, diary: Diary, deadline: Deadline) -> bool:
        """Delete a key that is due, with the tokens that are kept of it. Answers whether it was.

        One that is in use again is left, and its grace begins anew. Raises what a step raises.
        """
        credential, versions = retired.credential, Versions(self.secrets_manager, retired.credential)
        with self.leases.held(retired.account_id, retired.tenant_id) as prolong:
            note = self.notes.still_retired(retired)
            if note is None or not self.due(note):
                return False
            try:
                staged = {key for key, stages in versions.public_keys().items() if stages & _IN_USE}
                api_key = versions.current().api_key
            except CredentialNotFound as exc:
                self.notes.forget(note)  # told once: no later run could do it either
                raise RotationFailed(
                    f"the credential is gone, and with it the right to delete {retired.public_key}: delete it by hand"
                ) from exc
            if retired.public_key in in_use | staged:
                self.notes.retire(replace(note, retired_at=int(self.clock())))
                return False
            if (api_key.account_id, tenant_of(api_key)) != (retired.account_id, retired.tenant_id):
                raise RotationFailed("tenantId: the credential is another tenant's by now; delete the old key by hand")
            keys = self.vendor.keys(
                credential, api_key, prolong=prolong, deadline=deadline, correlation_id=diary.request_id
            )
            self._purge(credential, retired.public_key, api_key.public_key)
            diary.deletes(credential, retired.public_key, why="retired")
            keys.delete(retired.public_key, before=prolong)
            # Once more: a function that held the old key to the last may have put a token of it there in between.
            self._purge(credential, retired.public_key, api_key.public_key)
            self.notes.forget(note)
            return True

    def _purge(self, credential: CredentialId, old: str, current: str) -> None:
        self.pool.purge(credential, public_key=current)
        self.shared.purge(credential, public_key=old)
