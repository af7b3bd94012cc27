"""A tenant's keys over the emulator's API (protocol.md section 6): made, listed and deleted by a key that may.

========================================================  ==============================================================
``POST /v1/tenant/{tenantId}/keys``                       ``{name, roles}`` -> 201 with the private key, this once
``GET /v1/tenant/{tenantId}/keys``                        ``{"keys": [...]}`` without private keys
``DELETE /v1/tenant/{tenantId}/keys/{publicKey}``         204; the key is revoked at once
========================================================  ==============================================================

Who may: a key of that tenant with the role ``tenant-admin``, or a key of its account with ``account-admin``. A key that was
put in without roles, as most secrets are written, may do what its scope allows: the emulator does not know its roles.
"""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from local.imburse_errors import InvalidDocument, Refusal
from local.imburse_keys import ImburseKey, KeyRegistry

TENANT_ROLES = frozenset(
    ["tenant-admin", "tenant-management"]
    + [
        f"tenant-{what}-{how}"
        for what in ("app", "collect-scheme", "payout-scheme", "reward-group", "transaction")
        for how in ("read", "write")
    ]
)
MAX_NAME_CHARACTERS = 128


def make_key(keys: KeyRegistry, manager: ImburseKey, tenant_id: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Make a key of the tenant; answers the vendor's document, private key and all. Raises Refusal, InvalidDocument."""
    _require_manager(keys, manager, tenant_id)
    if set(document) != {"name", "roles"}:
        raise InvalidDocument("the body must have name and roles, and nothing else")
    name, roles = document["name"], document["roles"]
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise InvalidDocument(f"name must be a string of 1 to {MAX_NAME_CHARACTERS} characters")
    if not isinstance(roles, list) or not all(isinstance(role, str) and role in TENANT_ROLES for role in roles):
        raise InvalidDocument("roles must be a list of roles of a tenant")
    private_key = secrets.token_bytes(32)
    made = ImburseKey(str(uuid.uuid4()), private_key, manager.account_id, tenant_id, tuple(roles), name)
    keys.add(made)
    return made.public_json() | {"privateKey": base64.b64encode(private_key).decode()}


def tenant_keys(keys: KeyRegistry, manager: ImburseKey, tenant_id: str) -> list[dict[str, Any]]:
    """Everything that may be shown of the tenant's keys. Raises Refusal."""
    _require_manager(keys, manager, tenant_id)
    return [key.public_json() for key in _of_tenant(keys, manager, tenant_id)]


def delete_key(keys: KeyRegistry, manager: ImburseKey, tenant_id: str, public_key: str) -> None:
    """Revoke a key of the tenant. Raises Refusal."""
    _require_manager(keys, manager, tenant_id)
    if public_key not in {key.public_key for key in _of_tenant(keys, manager, tenant_id)}:
        raise Refusal(404, "API_KEY_NOT_FOUND", "The API key {publicKey} is not known.", publicKey=public_key)
    keys.revoke(public_key)


def _of_tenant(keys: KeyRegistry, manager: ImburseKey, tenant_id: str) -> list[ImburseKey]:
    return [key for key in keys if (key.account_id, key.tenant_id) == (manager.account_id, tenant_id)]


def _require_manager(keys: KeyRegistry, manager: ImburseKey, tenant_id: str) -> None:
    needed = "account-admin" if manager.tenant_id is None else "tenant-admin"
    if manager.roles and needed not in manager.roles:
        raise Refusal(403, "ROLE_HAS_NO_ACCESS", "Managing keys needs the role {role}.", role=needed)
    # An account's key reaches every tenant of its account, and a tenant is known by its keys.
    if manager.tenant_id not in (None, tenant_id) or not _of_tenant(keys, manager, tenant_id):
        raise Refusal(403, "TENANT_ID_HAS_NO_ACCESS", "The token has no access to this tenant.")
