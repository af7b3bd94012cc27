"""The emulator's check of an Hmac header (protocol.md section 2).

Written from the protocol and not from ``imburse_auth``: two implementations that agree are worth more than one that
agrees with itself.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import re
from collections.abc import Callable, Sequence

from local.imburse_errors import Refusal
from local.imburse_keys import ImburseKey, KeyRegistry

WINDOW_SECONDS = 300

_HEADER = re.compile(r"Hmac ([^:\s]+):([A-Za-z0-9]{1,256}):([0-9]{1,12}):([A-Za-z0-9+/]+={0,2})", re.ASCII)


def expected_signature(key: ImburseKey, nonce: str, timestamp: str, body: bytes) -> str:
    """Answer the base64 signature that the owner of ``key`` would send."""
    body_hash = base64.b64encode(hashlib.sha256(body).digest()).decode() if body else ""
    message = ":".join((key.public_key, nonce, timestamp, body_hash))
    return base64.b64encode(hmac.digest(key.private_key, message.encode(), "sha256")).decode()


class HmacGate:
    """Lets a request through once, if its header is genuine and fresh.

    ``now`` answers seconds since the epoch. The state is the set of nonces seen.
    """

    def __init__(self, keys: KeyRegistry, now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now
        self._nonces: set[str] = set()
        self._forget_at: list[tuple[float, str]] = []

    def check(self, authorization: Sequence[str], body: bytes) -> ImburseKey:
        """Answer the key that signed; ``authorization`` holds every Authorization header of the request.

        Raises Refusal, with another code for each cause. A nonce counts as seen from the moment its signature is
        proven, so that only the owner of a key can use one up, and whatever becomes of the answer.
        """
        if not authorization:
            raise Refusal(401, "AUTHORIZATION_HEADER_IS_REQUIRED", "The Authorization header is required.")
        header = _HEADER.fullmatch(authorization[0])
        if len(authorization) > 1 or header is None:
            expected = "Hmac publicKey:nonce:timestamp:signature"
            raise Refusal(400, "HMAC_HEADER_IS_MALFORMED", "Expected one header of the form {form}.", form=expected)
        public_key, nonce, timestamp, signature = header.groups()
        key = self._keys.require(public_key)
        if not hmac.compare_digest(expected_signature(key, nonce, timestamp, body).encode(), signature.encode()):
            raise Refusal(401, "HMAC_SIGNATURE_MISMATCH", "The signature does not match the request.")
        self._require_fresh(int(timestamp))
        self._use_up(nonce, int(timestamp))
        return key

    def forget(self) -> None:
        """Forget every nonce."""
        self._nonces.clear()
        self._forget_at.clear()

    def _require_fresh(self, timestamp: int) -> None:
        now = self._now()
        if abs(now - timestamp) > WINDOW_SECONDS:
            raise Refusal(
                401,
                "HMAC_TIMESTAMP_OUT_OF_WINDOW",
                "The timestamp is more than {windowSeconds} seconds away from {serverTime}.",
                windowSeconds=WINDOW_SECONDS,
                serverTime=int(now),
            )

    def _use_up(self, nonce: str, timestamp: int) -> None:
        now = self._now()
        while self._forget_at and self._forget_at[0][0] < now:
            self._nonces.discard(heapq.heappop(self._forget_at)[1])
        if nonce in self._nonces:
            raise Refusal(401, "HMAC_NONCE_ALREADY_USED", "The nonce was seen before; sign every attempt afresh.")
        self._nonces.add(nonce)
        # A header dated into the future stays valid longer than one window, so its nonce is kept longer too.
        heapq.heappush(self._forget_at, (max(now, timestamp) + 2 * WINDOW_SECONDS, nonce))
