"""API keys known to the Imburse emulator: added and revoked while it runs (protocol.md section 1)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.imburse_errors import InvalidDocument, Refusal


@dataclass(frozen=True)
class ImburseKey:
    """One API key. Without ``tenant_id`` it is an account key, with one a tenant key."""

    public_key: str
    private_key: bytes = field(repr=False)
    account_id: str
    tenant_id: str | None = None
    roles: tuple[str, ...] = ()
    name: str | None = None

    def __post_init__(self) -> None:
        if not self.public_key or ":" in self.public_key or not self.public_key.isprintable():
            raise InvalidDocument("public_key must be printable text without a colon")
        if not self.private_key:
            raise InvalidDocument("private_key must not be empty")
        if not self.account_id:
            raise InvalidDocument("account_id must not be empty")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ImburseKey:
        """Read ``{publicKey, privateKey (base64), accountId, tenantId?, roles?, name?}``; other fields are ignored.

        That is the shape of a credential secret too, so a stack can feed its secrets in as they are. Raises
        InvalidDocument, which names the field and never shows a value.
        """
        texts = {name: document.get(name) for name in ("publicKey", "privateKey", "accountId")}
        for field_name, value in texts.items():
            if not isinstance(value, str):
                raise InvalidDocument(f"{field_name} must be a string")
        tenant_id, roles, name = document.get("tenantId"), document.get("roles", ()), document.get("name")
        if not isinstance(tenant_id, str | None) or not isinstance(name, str | None):
            raise InvalidDocument("tenantId and name must be strings")
        if not isinstance(roles, list | tuple) or not all(isinstance(role, str) for role in roles):
            raise InvalidDocument("roles must be a list of strings")
        try:
            private_key = base64.b64decode(str(texts["privateKey"]), validate=True)
        except (binascii.Error, ValueError):
            # `from None`: the cause would quote the key.
            raise InvalidDocument("privateKey must be base64") from None
        account_id = str(texts["accountId"])
        return cls(str(texts["publicKey"]), private_key, account_id, tenant_id or None, tuple(roles), name or None)

    def public_json(self) -> dict[str, Any]:
        """Answer everything about the key that may be shown."""
        shown = {"publicKey": self.public_key, "accountId": self.account_id, "roles": list(self.roles)}
        more = {"tenantId": self.tenant_id, "name": self.name}
        return shown | {name: value for name, value in more.items() if value}


class KeyRegistry:
    """Keys by public key. Revoking is at once and for good, and the refusal then says so."""

    def __init__(self, keys: Iterable[ImburseKey] = ()) -> None:
        self._active: dict[str, ImburseKey] = {}
        self._revoked: set[str] = set()
        for key in keys:
            self.add(key)

    def __iter__(self) -> Iterator[ImburseKey]:
        return iter(tuple(self._active.values()))

    def add(self, key: ImburseKey) -> None:
        """Add a key, or put another generation in the place of the one with the same public key."""
        self._revoked.discard(key.public_key)
        self._active[key.public_key] = key

    def revoke(self, public_key: str) -> bool:
        """Revoke a key; answers whether there was one."""
        if self._active.pop(public_key, None) is None:
            return False
        self._revoked.add(public_key)
        return True

    def require(self, public_key: str) -> ImburseKey:
        """Answer the active key, or raise the Refusal (401) that tells unknown from revoked."""
        if key := self._active.get(public_key):
            return key
        if public_key in self._revoked:
            raise Refusal(401, "API_KEY_REVOKED", "The API key {publicKey} is revoked.", publicKey=public_key)
        raise Refusal(401, "API_KEY_NOT_FOUND", "The API key {publicKey} is not known.", publicKey=public_key)


def require_scope(key: ImburseKey, account_id: str | None, tenant_id: str | None) -> None:
    """Apply the header rule of protocol.md section 4: raises Refusal unless the scope headers fit the key."""
    if account_id is None:
        raise Refusal(400, "ACCOUNT_ID_IS_REQUIRED", "The header x-account-id is required.")
    if account_id != key.account_id:
        raise Refusal(403, "ACCOUNT_ID_HAS_NO_ACCESS", "The token has no access to the account in x-account-id.")
    if key.tenant_id is None and tenant_id is not None:
        raise Refusal(400, "TENANT_ID_IS_NOT_EXPECTED", "The token of an account key takes no x-tenant-id.")
    if key.tenant_id is not None and tenant_id is None:
        raise Refusal(400, "TENANT_ID_IS_REQUIRED", "The header x-tenant-id is required.")
    if tenant_id != key.tenant_id:
        raise Refusal(403, "TENANT_ID_HAS_NO_ACCESS", "The token has no access to the tenant in x-tenant-id.")
