"""An Imburse API key pair, from the JSON of its secret (protocol.md, section 1)."""

from __future__ import annotations

import base64
import binascii
import difflib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Any, Final, Literal, NoReturn, get_args

from imburse_auth.credential import CredentialId
from imburse_auth.errors import CredentialMisconfigured

Reuse = Literal["single-use", "shared"]

_FIELDS: Final = {
    "publicKey": "public_key",
    "privateKey": "private_key",  # pragma: allowlist secret (a name)
    "accountId": "account_id",
    "tenantId": "tenant_id",
    "name": "name",
    "roles": "roles",
    "baseUrl": "base_url",
    "reuse": "reuse",
    "poolMin": "pool_min",
    "poolMax": "pool_max",
    "managedBy": "managed_by",
    "createdAt": "created_at",
}
_REQUIRED: Final = ("publicKey", "privateKey", "accountId")
_LARGEST_POOL: Final = 10_000

# Public key, account and tenant go into headers: printable ASCII without spaces leaves no room for a second header.
_HEADER_SAFE = re.compile(r"[!-~]{1,128}")


class ApiKey:
    """A public and a private key that belong together, and the account and tenant that they speak for.

    `private_key` is the base64 text that the portal shows; it is decoded once, here, and cannot be read back: it is in
    no repr, no attribute of a public name, no pickle and no copy. Keys are equal when every part is equal, the private
    key compared in constant time; the hash leaves the private key out, so keys may stand in sets and dicts.

    Raises CredentialMisconfigured (a ValueError) that names the field and the rule, never a value.
    """

    __slots__ = (
        "_secret",
        "account_id",
        "base_url",
        "created_at",
        "managed_by",
        "name",
        "pool_max",
        "pool_min",
        "public_key",
        "reuse",
        "roles",
        "tenant_id",
    )

    _secret: bytes
    public_key: str
    account_id: str | None
    tenant_id: str | None
    name: str | None
    roles: tuple[str, ...]
    base_url: str | None
    reuse: Reuse
    pool_min: int
    pool_max: int
    managed_by: CredentialId | None
    created_at: datetime | None

    def __init__(
        self,
        public_key: str,
        private_key: str,
        account_id: str | None = None,
        tenant_id: str | None = None,
        *,
        name: str | None = None,
        roles: tuple[str, ...] | list[str] = (),
        base_url: str | None = None,
        reuse: Reuse = "single-use",
        pool_min: int = 0,
        pool_max: int = 0,
        managed_by: str | CredentialId | None = None,
        created_at: str | datetime | None = None,
    ) -> None:
        _check_header_safe("publicKey", public_key)
        if ":" in public_key:
            _refuse("publicKey", "must not contain a colon, which separates the parts of an HMAC token")
        for field, value in (("accountId", account_id), ("tenantId", tenant_id)):
            if value is not None:
                _check_header_safe(field, value)
        for field, value in (("name", name), ("baseUrl", base_url)):
            if value is not None and not (isinstance(value, str) and value):
                _refuse(field, "must be text that is not empty")
        if not isinstance(roles, (list, tuple)) or not all(isinstance(role, str) and role for role in roles):
            _refuse("roles", "must be a list of texts")
        if reuse not in get_args(Reuse):
            _refuse("reuse", f"must be one of {', '.join(get_args(Reuse))}")
        for field, size in (("poolMin", pool_min), ("poolMax", pool_max)):
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST_POOL:
                _refuse(field, f"must be a whole number from 0 to {_LARGEST_POOL}")
        if pool_min > pool_max:
            _refuse("poolMin", "must not be larger than poolMax")
        parts = {
            "public_key": public_key,
            "_secret": _decode(private_key),
            "account_id": account_id,
            "tenant_id": tenant_id,
            "name": name,
            "roles": tuple(roles),
            "base_url": base_url,
            "reuse": reuse,
            "pool_min": pool_min,
            "pool_max": pool_max,
            "managed_by": _managed_by(managed_by),
            "created_at": _created_at(created_at),
        }
        for attribute, part in parts.items():
            object.__setattr__(self, attribute, part)

    @classmethod
    def from_secret(cls, text: str) -> ApiKey:
        """Read the JSON of a secret.

        `{"publicKey", "privateKey", "accountId", "tenantId"?, "name"?, "roles"?, "baseUrl"?, "reuse"?, "poolMin"?,
        "poolMax"?, "managedBy"?, "createdAt"?}`: `managedBy` is the id of the credential whose tokens make and delete keys
        for this one, `createdAt` an ISO 8601 time with its offset: since when this pair is in use. Other members are ignored,
        but for one that is nearly a field: a misspelt `tenantID` would silently turn a tenant key into an account key.
        """
        try:
            members = json.loads(text, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as exc:
            if isinstance(exc, CredentialMisconfigured):
                raise
            # `from None`: a JSON error carries the whole text, key included.
            raise CredentialMisconfigured("secret: must be valid JSON") from None
        if not isinstance(members, dict):
            raise CredentialMisconfigured("secret: must be a JSON object")
        for field in members.keys() - _FIELDS.keys():
            lowered = {known.lower(): known for known in _FIELDS}
            near = difflib.get_close_matches(field.lower().replace("_", ""), lowered, n=1, cutoff=0.85)
            if near:
                _refuse(lowered[near[0]], "stands in the secret under a misspelt name")
        for field in _FIELDS.keys() & members.keys():
            if members[field] is None:
                _refuse(field, "must not be null")
        for field in _REQUIRED:
            if field not in members:
                _refuse(field, "is missing")
        given: dict[str, Any] = {_FIELDS[field]: value for field, value in members.items() if field in _FIELDS}
        return cls(**given)

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA-256 of the message under the private key: 32 bytes."""
        return hmac.digest(self._secret, message, "sha256")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ApiKey):
            return NotImplemented
        return self._public_parts() == other._public_parts() and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self._public_parts())

    def _public_parts(self) -> tuple[object, ...]:
        return (
            self.public_key,
            self.account_id,
            self.tenant_id,
            self.name,
            self.roles,
            self.base_url,
            self.reuse,
            self.pool_min,
            self.pool_max,
            self.managed_by,
            self.created_at,
        )

    def __repr__(self) -> str:
        return f"ApiKey(public_key={self.public_key!r}, account_id={self.account_id!r}, tenant_id={self.tenant_id!r})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("an ApiKey does not change: a public key must never be paired with another private key")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("an ApiKey does not change")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an ApiKey is neither pickled nor copied: its private key stays in this process's memory")


def _decode(private_key: object) -> bytes:
    # Strict: what the portal shows is canonical base64; anything else is a key pasted wrongly, and would sign wrongly.
    rule = "must be base64 (standard alphabet, padded, no white space)"
    if not isinstance(private_key, str):
        _refuse("privateKey", rule)
    try:
        secret = base64.b64decode(private_key, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not secret or base64.b64encode(secret).decode() != private_key:
        _refuse("privateKey", rule)
    return secret


def _managed_by(value: object) -> CredentialId | None:
    if value is None or isinstance(value, CredentialId):
        return value
    try:
        return CredentialId.parse(value)
    except ValueError:
        _refuse("managedBy", "must be text of the form <environment>/<name>")


def _created_at(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        moment = (
            value if isinstance(value, datetime) else datetime.fromisoformat(value if isinstance(value, str) else "")
        )
    except ValueError:
        _refuse("createdAt", "must be an ISO 8601 time, like 2026-01-31T12:00:00Z")
    if moment.tzinfo is None:
        _refuse("createdAt", "must say its offset from UTC, like 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC)


def _check_header_safe(field: str, value: object) -> None:
    if not (isinstance(value, str) and _HEADER_SAFE.fullmatch(value)):
        _refuse(field, "must be 1 to 128 printable ASCII characters without spaces")


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CredentialMisconfigured("secret: a field stands in it twice")
    return members


def _refuse(field: str, rule: str) -> NoReturn:
    raise CredentialMisconfigured(f"{field}: {rule}")
