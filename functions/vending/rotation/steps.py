"""Secrets Manager's steps for one credential. Each may run again after a crash at any point, and ends in one new key.

What keeps a key from being lost or left over: the intent is written before a key is made, the key is stored before it is
tested, and the old one is written down as retired before the new one takes its place.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import (
    CredentialMisconfigured,
    CredentialNotFound,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnavailable,
    VendingError,
)
from imburse_auth.key_management import CALL_SECONDS, ListedKey, MadeKey
from imburse_auth.retry import Deadline, retrying
from vending.rotation.diary import Diary
from vending.rotation.lease import Leases, RotationFailed
from vending.rotation.notes import Intent, Notes, Retired
from vending.rotation.orphans import Orphans
from vending.rotation.vendor import Vendor, tenant_of
from vending.rotation.versions import CURRENT, PENDING, Version, Versions
from vending.table import TableUnavailable

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

MAKE_ATTEMPTS = 3


@dataclass(frozen=True)
class Steps:
    """Everything raises RotationFailed, TableUnavailable, AuditUnavailable, the layer's errors and what boto3 raises."""

    secrets_manager: SecretsManagerClient
    vendor: Vendor
    notes: Notes
    leases: Leases
    keys_in_use: Callable[[Callable[[], None]], set[str]]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def create(self, credential: CredentialId, token: str, *, diary: Diary, deadline: Deadline) -> str:
        """Make a key with the name and roles of the current one, and store it as the version `token`, unless it is there."""
        versions = Versions(self.secrets_manager, credential)
        with self._lease(versions) as prolong:
            if self._done(versions, token) or versions.pending(token) is not None:
                return "the new key is stored already"
            current = versions.current()
            self._prove_managed(credential, current.api_key, prolong, deadline, diary.request_id)
            orphans = self._orphans(credential, current.api_key, versions, diary, prolong, deadline)
            members = _Making(credential, current, orphans).stored_members(deadline, sleep=self.sleep)
            prolong()  # whoever had the lease since would have taken the key for an orphan
            versions.store(token, members)
            return "a new key is made and stored"

    def test(self, credential: CredentialId, token: str, *, deadline: Deadline, correlation_id: str) -> str:
        """Prove the new key by an exchange and a use: it must reach the account and the tenant of the current one."""
        versions = Versions(self.secrets_manager, credential)
        if self._done(versions, token):
            return "the new key is in use already"
        pending, current = self._pending(versions, token), versions.current()
        for field, new, old in (
            ("accountId", pending.api_key.account_id, current.api_key.account_id),
            ("tenantId", pending.api_key.tenant_id, current.api_key.tenant_id),
        ):
            if new != old:
                raise CredentialMisconfigured(f"{field}: must be the same in the new version as in the current one")
        self.vendor.prove(credential, pending.api_key, deadline=deadline, correlation_id=correlation_id)
        return "the new key works"

    def finish(self, credential: CredentialId, token: str, *, diary: Diary, deadline: Deadline) -> str:
        """Write the old key down as retired, make the new one current, and see to it that nothing is left over."""
        versions = Versions(self.secrets_manager, credential)
        with self._lease(versions) as prolong:
            if not self._done(versions, token):
                pending, current = self._pending(versions, token), versions.current()
                self._check_place(credential, current)
                old = current.api_key
                if old.public_key != pending.api_key.public_key:
                    account_id, tenant_id = str(old.account_id), tenant_of(old)
                    now = int(self.clock())
                    self.notes.retire(Retired(credential, old.public_key, account_id, tenant_id, retired_at=now))
                diary.moves(credential, pending.api_key.public_key, instead_of=old.public_key)
                prolong()
                versions.make_current(token, instead_of=current.id)
            if PENDING in versions.stages().get(token, ()):
                # Left there it would stand on an old version one day, when somebody stores a key by hand or goes back a
                # version: Secrets Manager would take that for this rotation, unfinished, and make the old key current.
                versions.settle(token)
            intent = self.notes.intent(credential)
            if intent is not None and _is_of(intent, api_key := versions.current().api_key):
                self._tidy(intent, self._orphans(credential, api_key, versions, diary, prolong, deadline))
            return "the new key is in use"

    def tidy(self, intent: Intent, *, diary: Diary, deadline: Deadline) -> None:
        """Clean up after a rotation that was given up. One that waits for its next step keeps its intent."""
        versions = Versions(self.secrets_manager, intent.credential)
        try:
            lease = self._lease(versions)
        except CredentialNotFound as exc:
            self.notes.fulfil(intent.credential)  # told once: no later run could do it either
            raise RotationFailed(
                f"the credential is gone, and a key named {intent.name} may be left over: delete it by hand"
            ) from exc
        with lease as prolong:
            now = self.notes.intent(intent.credential)
            if now is not None:
                api_key = versions.current().api_key
                if not _is_of(now, api_key):
                    self.notes.fulfil(now.credential)  # told once: no later run could do it either
                    raise RotationFailed(
                        "tenantId: the credential is another tenant's by now, and a key named"
                        f" {now.name} may be left over at {now.tenant_id}: delete it by hand"
                    )
                self._tidy(now, self._orphans(now.credential, api_key, versions, diary, prolong, deadline))

    def _tidy(self, intent: Intent, orphans: Orphans) -> None:
        cleaned = orphans.clean(intent)
        if cleaned.intent.posts == 0:
            self.notes.fulfil(intent.credential)
        elif cleaned.intent != intent:
            self.notes.intend(cleaned.intent)

    def _lease(self, versions: Versions) -> contextlib.AbstractContextManager[Callable[[], None]]:
        api_key = versions.current().api_key
        return self.leases.held(str(api_key.account_id), tenant_of(api_key))

    def _orphans(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        versions: Versions,
        diary: Diary,
        prolong: Callable[[], None],
        deadline: Deadline,
    ) -> Orphans:
        keys = self.vendor.keys(
            credential, api_key, prolong=prolong, deadline=deadline, correlation_id=diary.request_id
        )
        return Orphans(versions, self.notes, diary, keys, self.keys_in_use, prolong, self.clock)

    def _done(self, versions: Versions, token: str) -> bool:
        """Whether the version is in use already. Raises RotationFailed if another took its place."""
        has = versions.stages().get(token, ())
        # A version without a stage has none yet (the local driver does not announce it, as AWS does) or none any more.
        if not {CURRENT, PENDING} & set(has) and (has or versions.has_value(token)):
            raise RotationFailed(
                "ClientRequestToken: that version is neither pending nor current: a later rotation came"
            )
        return CURRENT in has

    def _check_place(self, credential: CredentialId, current: Version) -> None:
        """Raise RotationFailed unless the new key was made here, from the version that is current.

        Somebody stored a key, or changed another member, in the meantime: the new version would silently undo that. And what
        was never seen to be this credential's key must not be taken down as replaced, since that has it deleted.
        """
        intent = self.notes.intent(credential)
        if intent is None or intent.instead_of != current.id:
            raise RotationFailed(
                "AWSCURRENT: is not on the version that the new key was made from, which would be lost: take AWSPENDING off"
                " the version of this rotation, and rotate anew"
            )

    def _prove_managed(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        prolong: Callable[[], None],
        deadline: Deadline,
        correlation_id: str,
    ) -> None:
        """Let the key in use show whose it is, before another credential's token makes one like it.

        Whoever may write this one secret could else name any tenant of the account in it, and be given a key of that tenant.
        """
        if api_key.managed_by is not None:
            prolong()
            soon = Deadline.after(min(CALL_SECONDS, deadline.remaining_seconds()), deadline.clock)
            self.vendor.prove(credential, api_key, deadline=soon, correlation_id=correlation_id)

    def _pending(self, versions: Versions, token: str) -> Version:
        pending = versions.pending(token)
        if pending is None:
            raise RotationFailed("ClientRequestToken: that version has no value: createSecret comes first")
        return pending


def _is_of(intent: Intent, api_key: ApiKey) -> bool:
    """Whether the key is of the intent's tenant still: at another one, a key of the same name is nobody's orphan."""
    return (api_key.account_id, api_key.tenant_id) == (intent.account_id, intent.tenant_id)


@dataclass(frozen=True)
class _Making:
    """The making of one key for a credential, under its tenant's lease."""

    credential: CredentialId
    current: Version
    orphans: Orphans

    def stored_members(self, deadline: Deadline, *, sleep: Callable[[float], None]) -> dict[str, Any]:
        """The secret's members with a new pair. An answer that is lost is asked for again, after its key is deleted."""
        try:
            return retrying(deadline, attempts=MAKE_ATTEMPTS, sleep=sleep)(self._attempt)
        except (UpstreamProtocol, UpstreamUnavailable):
            # A key may have been made all the same. If it cannot be deleted now, the intent lets the next run do it.
            with contextlib.suppress(VendingError, RotationFailed, TableUnavailable):
                self._clean()
            raise

    def _attempt(self) -> dict[str, Any]:
        intent, listed = self._clean()
        now = int(self.orphans.clock())
        asked = replace(intent, posts=intent.posts + 1, posted_at=now, instead_of=self.current.id)
        was_asked = False

        def before() -> None:
            nonlocal was_asked
            self.orphans.notes.intend(asked)
            self.orphans.prolong()
            was_asked = True

        roles = self._roles(listed)
        try:
            made = self.orphans.keys.make(intent.name, roles, before=before)
        except (UpstreamRejected, UpstreamThrottled):
            if was_asked:
                self.orphans.notes.intend(intent)  # it said no, so there is no key to look for
            raise
        members = self._members(made, roles, listed)
        self.orphans.diary.made(self.credential, made.public_key)
        self.orphans.notes.intend(replace(asked, made=asked.made | {made.public_key}))
        return members

    def _clean(self) -> tuple[Intent, tuple[ListedKey, ...]]:
        """Delete what an earlier run left over. Answers the intent under which a key may be asked for, and what there is."""
        api_key = self.current.api_key
        name, account_id, tenant_id = api_key.name or self.credential.name, str(api_key.account_id), tenant_of(api_key)
        known = self.orphans.notes.intent(self.credential)
        if known is None or (known.account_id, known.tenant_id) != (account_id, tenant_id):
            listed = self.orphans.keys.list()
            # The secret's own too: AWSPREVIOUS may be one that Imburse does not list any more.
            before = frozenset(key.public_key for key in listed) | self.orphans.versions.public_keys().keys()
            return Intent(self.credential, name, account_id, tenant_id, before, posts=0, posted_at=0), listed
        cleaned = self.orphans.clean(known)
        if cleaned.outstanding and known.name == name:
            return cleaned.intent, cleaned.keys  # one that may still come up must not be taken for one that was there
        before = (cleaned.intent.before | {key.public_key for key in cleaned.keys}) - cleaned.waiting
        return replace(cleaned.intent, name=name, before=before, posts=len(cleaned.waiting)), cleaned.keys

    def _roles(self, listed: tuple[ListedKey, ...]) -> tuple[str, ...]:
        """The secret's roles, or if it does not tell, those that Imburse lists for the key in use."""
        api_key = self.current.api_key
        theirs = next((key.roles for key in listed if key.public_key == api_key.public_key), None)
        more = sorted(set(api_key.roles or ()) - set(theirs or ()))
        if api_key.managed_by is not None and more:
            raise CredentialMisconfigured(
                f"roles: with managedBy, must be roles that Imburse lists for the key in use, not {', '.join(more)}"
            )
        return api_key.roles or theirs or ()

    def _members(self, made: MadeKey, roles: tuple[str, ...], listed: tuple[ListedKey, ...]) -> dict[str, Any]:
        created_at = datetime.fromtimestamp(int(self.orphans.clock()), UTC).isoformat().replace("+00:00", "Z")
        pair = {"publicKey": made.public_key, "privateKey": made.private_key, "createdAt": created_at}
        members = {**self.current.members, **pair}
        try:
            ApiKey.from_secret(json.dumps(members))
        except CredentialMisconfigured as exc:
            raise UpstreamProtocol(f"Imburse made a key that cannot be used: {exc.detail}") from None
        api_key = self.current.api_key
        if (made.account_id, made.tenant_id) != (api_key.account_id, api_key.tenant_id):
            raise UpstreamProtocol("Imburse made a key of another account or tenant")
        if made.public_key in {key.public_key for key in listed}:
            raise UpstreamProtocol("Imburse made a key that was there before")
        if made.roles is not None and not set(roles) <= set(made.roles):
            raise UpstreamProtocol("Imburse made a key without all the roles that were asked for")
        return members
