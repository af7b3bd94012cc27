"""The emulator's access tokens: JWT-shaped, 30 minutes, one use each (protocol.md section 3)."""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from local.imburse_errors import Refusal
from local.imburse_keys import ImburseKey

LIFETIME_SECONDS = 1800

_BEARER = re.compile(r"Bearer (([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+))", re.ASCII)


@dataclass(frozen=True)
class IssuedToken:
    """A token as the exchange answers it; ``expires`` is in seconds since the epoch."""

    value: str = field(repr=False)
    expires: int


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class TokenMint:
    """Issues tokens and takes each back once. The signing key is made here and never leaves."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._signing_key = secrets.token_bytes(32)
        self._unused: set[str] = set()
        self._expiries: deque[tuple[int, str]] = deque()
        self._last: dict[str, IssuedToken] = {}

    def issue(self, key: ImburseKey) -> IssuedToken:
        """Answer a fresh token for ``key``."""
        now = int(self._now())
        self._drop_expired(now)
        token_id, expires = secrets.token_hex(16), now + LIFETIME_SECONDS
        claims = {
            "iss": "imburse-emulator",
            "sub": key.public_key,
            "jti": token_id,
            "iat": now,
            "exp": expires,
            "accountId": key.account_id,
            "tenantId": key.tenant_id,
            "roles": key.roles,
        }
        parts = [{"alg": "HS256", "typ": "JWT"}, claims]
        signed = ".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
        token = IssuedToken(f"{signed}.{self._signature(signed)}", expires)
        self._unused.add(token_id)
        self._expiries.append((expires, token_id))
        self._last[key.public_key] = token
        return token

    def repeat(self, key: ImburseKey) -> IssuedToken | None:
        """Answer the token issued last for ``key``, again: what a faulty server would do."""
        return self._last.get(key.public_key)

    def spend(self, authorization: Sequence[str]) -> str:
        """Use a Bearer token up and answer the public key it was issued for. Raises Refusal (401)."""
        if not authorization:
            raise Refusal(401, "ACCESS_TOKEN_IS_REQUIRED", "The Authorization header is required.")
        bearer = _BEARER.fullmatch(authorization[0])
        if len(authorization) > 1 or bearer is None:
            raise Refusal(401, "ACCESS_TOKEN_IS_MALFORMED", "Expected one header of the form Bearer token.")
        if not hmac.compare_digest(self._signature(bearer[2]).encode(), bearer[3].encode()):
            raise Refusal(401, "ACCESS_TOKEN_NOT_RECOGNISED", "The access token was not issued here.")
        claims = json.loads(_decode(bearer[2].split(".")[1]))
        if claims["exp"] <= self._now():
            raise Refusal(401, "ACCESS_TOKEN_EXPIRED", "The access token expired at {expires}.", expires=claims["exp"])
        if claims["jti"] not in self._unused:
            raise Refusal(
                401, "ACCESS_TOKEN_ALREADY_USED", "The access token was used before; each is good for one use."
            )
        self._unused.discard(claims["jti"])
        return str(claims["sub"])

    def forget(self) -> None:
        """Forget every token: those issued so far are refused from now on."""
        self._unused.clear()
        self._expiries.clear()
        self._last.clear()

    def _signature(self, signed: str) -> str:
        return _encode(hmac.digest(self._signing_key, signed.encode(), "sha256"))

    def _drop_expired(self, now: int) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            self._unused.discard(self._expiries.popleft()[1])
