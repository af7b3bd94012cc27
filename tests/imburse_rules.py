"""An emulator on a clock that stands still, and what its tests say to it; no HTTP."""

from __future__ import annotations

import secrets

import pytest

from local.imburse import Imburse, ImburseKey
from local.imburse_errors import Refusal
from local.imburse_hmac import expected_signature

NOW = 1_700_000_000


class Clock:
    """Time that moves only when told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def an_account_key() -> ImburseKey:
    """A key of the account `account-1`."""
    return ImburseKey("account-key", secrets.token_bytes(32), "account-1", roles=("account-admin",))


def a_tenant_key() -> ImburseKey:
    """A key of the tenant `tenant-1` in it."""
    return ImburseKey("tenant-key", secrets.token_bytes(32), "account-1", "tenant-1")


def signed(key: ImburseKey, *, timestamp: int = NOW, nonce: str | None = None, body: bytes = b"") -> str:
    """A genuine Authorization header."""
    nonce = nonce or secrets.token_hex(16)
    return f"Hmac {key.public_key}:{nonce}:{timestamp}:{expected_signature(key, nonce, str(timestamp), body)}"


def a_token(imburse: Imburse, key: ImburseKey) -> str:
    """A token, properly exchanged."""
    return imburse.issue(imburse.authenticate([signed(key)], b"")).value


def code_of(refused: pytest.ExceptionInfo[Refusal]) -> tuple[int, str]:
    """Status and errorCode of a refusal."""
    return refused.value.status, refused.value.code
