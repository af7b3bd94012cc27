"""The HMAC token: a signed proof of one request, good for five minutes and one use (protocol.md, section 2)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from dataclasses import dataclass, field

from imburse_auth.api_key import ApiKey

NONCE_BYTES = 16  # 128 bits, 32 hexadecimal characters

_NONCE = re.compile(r"[A-Za-z0-9]{1,128}")
_MILLISECONDS_FROM = 10**11


@dataclass(frozen=True)
class HmacToken:
    """A signed token. `authorization` is the whole header value; it and the signature are hidden from repr.

    `timestamp` is in whole seconds since the epoch, UTC; `body_hash` is base64 of SHA-256, or "" for an empty body.
    """

    public_key: str
    nonce: str
    timestamp: int
    body_hash: str
    signature: str = field(repr=False)

    @property
    def string_to_sign(self) -> str:
        """`public_key:nonce:timestamp:body_hash`; the last colon stays when the body is empty."""
        return f"{self.public_key}:{self.nonce}:{self.timestamp}:{self.body_hash}"

    @property
    def authorization(self) -> str:
        """The value of the Authorization header: `Hmac public_key:nonce:timestamp:signature`."""
        return f"Hmac {self.public_key}:{self.nonce}:{self.timestamp}:{self.signature}"


def sign(
    api_key: ApiKey, body: bytes | str = b"", *, nonce: str | None = None, timestamp: int | None = None
) -> HmacToken:
    """Sign one request: every attempt needs a token of its own, since a nonce that was seen before is refused.

    `body` is what will be sent, text as UTF-8. `nonce` and `timestamp` (whole seconds) are made here unless given; a
    nonce that is given must be 1 to 128 ASCII letters and digits. Raises ValueError or TypeError, which name the field.
    """
    if isinstance(body, str):
        try:
            body = body.encode()
        except UnicodeEncodeError:
            raise ValueError("body: must be text that UTF-8 can carry") from None
    elif not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError("body: must be bytes or text")
    if nonce is None:
        nonce = secrets.token_hex(NONCE_BYTES)
    elif not (isinstance(nonce, str) and _NONCE.fullmatch(nonce)):
        raise ValueError("nonce: must be 1 to 128 ASCII letters and digits")
    if timestamp is None:
        timestamp = int(time.time())
    elif not isinstance(timestamp, int) or isinstance(timestamp, bool):
        raise TypeError("timestamp: must be whole seconds since the epoch")
    elif not 0 <= timestamp < _MILLISECONDS_FROM:
        raise ValueError("timestamp: must be whole seconds since the epoch, not milliseconds")
    body_hash = base64.b64encode(hashlib.sha256(body).digest()).decode() if body else ""
    message = f"{api_key.public_key}:{nonce}:{timestamp}:{body_hash}".encode()
    signature = base64.b64encode(api_key.mac(message)).decode()
    return HmacToken(api_key.public_key, nonce, timestamp, body_hash, signature)
