"""The access token: a bearer token for one API call (protocol.md, sections 3 and 4)."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from imburse_auth.api_key import ApiKey
from imburse_auth.errors import UpstreamProtocol

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, b64token: nothing that could end a header
_DIGITS = re.compile(r"[0-9]{1,15}")
_MILLISECONDS_FROM = 10**11
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


@dataclass(frozen=True)
class AccessToken:
    """One access token, to be used for one API call. `expires` is in whole seconds since the epoch, UTC."""

    value: str = field(repr=False)
    expires: int
    account_id: str | None = None
    tenant_id: str | None = None

    @classmethod
    def from_answer(cls, payload: object, api_key: ApiKey, *, now: float) -> AccessToken:
        """Read Imburse's answer, `{"accessToken": "...", "expires": 1614350382}`.

        Raises UpstreamProtocol for anything that is not a token that can still be used.
        """
        if not isinstance(payload, dict):
            raise UpstreamProtocol("Imburse's answer is not a JSON object")
        value = payload.get("accessToken")
        if not (isinstance(value, str) and _BEARER.fullmatch(value)):
            raise UpstreamProtocol("Imburse's answer has no accessToken that can be sent as a bearer token")
        expires = normalise_expires(payload.get("expires"))
        if expires <= now:
            raise UpstreamProtocol("Imburse's answer has a token that is already expired")
        return cls(value, expires, api_key.account_id, api_key.tenant_id)

    @property
    def expires_at(self) -> datetime:
        """When the token expires, in UTC."""
        return datetime.fromtimestamp(self.expires, UTC)

    def expires_in(self, now: float) -> int:
        """Whole seconds left at `now` (seconds since the epoch), never negative."""
        return max(0, math.floor(self.expires - now))

    def headers(self) -> dict[str, str]:
        """The headers of the API call: the bearer token, the account, and for a tenant key the tenant (section 4)."""
        headers = {"Authorization": f"Bearer {self.value}"}
        if self.account_id is not None:
            headers["x-account-id"] = self.account_id
        if self.tenant_id is not None:
            headers["x-tenant-id"] = self.tenant_id
        return headers

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the value, in hexadecimal: names the token in the audit record without giving it away."""
        return hashlib.sha256(self.value.encode()).hexdigest()


def normalise_expires(value: object) -> int:
    """Whole seconds since the epoch from an integer or a numeric text, in seconds or milliseconds (above 10^11)."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UpstreamProtocol("Imburse's answer has no expires that is a whole number")
    seconds = value // 1000 if value > _MILLISECONDS_FROM else value
    if not 0 <= seconds <= _LAST_SECOND:
        raise UpstreamProtocol("Imburse's answer has an expires that is no time")
    return seconds
