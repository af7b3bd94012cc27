"""By which recipe a signature was made: the right one, or the right one with one of the usual mistakes in it.

Each step of protocol.md, section 2, has its right way first and then the wrong ways that people take; every combination is
tried, those with the fewest mistakes first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imburse_vending.header_parts import Parts
from imburse_vending.key_input import KeyPair

MOST_MISTAKES = 3

# What is wrong about a way (None: nothing), and the step itself, which answers None where the way cannot be taken.
Mistake = str | None
KeyWay = tuple[Mistake, Callable[[str], bytes | None]]
BodyWay = tuple[Mistake, Callable[[bytes], str | None]]
TimeWay = tuple[Mistake, Callable[[str], str | None]]
OrderWay = tuple[Mistake, Callable[[str, str, str], str]]
MacWay = tuple[Mistake, Callable[[bytes, bytes], bytes]]
EncodingWay = tuple[Mistake, Callable[[bytes], str]]


@dataclass(frozen=True)
class Recipe:
    """A way to the signature; `mistakes` is empty for the right one."""

    mistakes: tuple[str, ...]


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _in_order(names: Sequence[str]) -> Callable[[str, str, str], str]:
    return lambda *parts: ":".join(parts[_NAMES.index(name)] for name in names)


_NAMES = ("publicKey", "nonce", "timestamp")
_KEYS: Sequence[KeyWay] = (
    (None, _decode),
    ("the private key was used as text: base64-decode it first", lambda text: text.encode()),
    (
        "the private key was used as text, with a line end: base64-decode it first",
        lambda text: (text + "\n").encode(),
    ),
    ("the private key was decoded to text and back: use its bytes", lambda text: _as_text(_decode(text))),
)
_BODY_HASHES: Sequence[BodyWay] = (
    (None, lambda body: ":" + (_b64(hashlib.sha256(body).digest()) if body else "")),
    (
        "the body is empty and was hashed all the same: an empty body has an empty hash",
        lambda body: None if body else ":" + _b64(hashlib.sha256(b"").digest()),
    ),
    ("the last colon is missing: it stays when the body hash is empty", lambda body: None if body else ""),
    ("the body was left out of the signature", lambda body: ":" if body else None),
    ("the body's hash is hexadecimal: base64-encode its bytes", lambda body: ":" + hashlib.sha256(body).hexdigest()),
    (
        "the body's hash is base64 of its hex digits: encode its bytes",
        lambda body: ":" + _b64(hashlib.sha256(body).hexdigest().encode()),
    ),
    (
        "the body's hash was signed in braces",
        lambda body: f":{{{_b64(hashlib.sha256(body).digest()) if body else ''}}}",
    ),
    ("the body was signed unhashed", lambda body: ":" + body.decode("utf-8", "replace") if body else None),
    (
        "the body was signed with a line end that was not given here",
        lambda body: ":" + _b64(hashlib.sha256(body + b"\n").digest()) if body else None,
    ),
)
_TIMES: Sequence[TimeWay] = (
    (None, lambda text: text),
    ("the timestamp was signed in seconds and sent in milliseconds", lambda text: text[:-3] or None),
    ("the timestamp was signed in milliseconds and sent in seconds", lambda text: text + "000"),
)
_ORDERS: Sequence[OrderWay] = (
    (None, lambda key, nonce, time: f"{key}:{nonce}:{time}"),
    *(
        (f"the order was {':'.join(names)}: it is publicKey:nonce:timestamp", _in_order(names))
        for names in list(itertools.permutations(_NAMES))[1:]
    ),
    ("the braces were signed too", lambda key, nonce, time: f"{{{key}:{nonce}:{time}"),
    ("the braces of each part were signed too", lambda key, nonce, time: f"{{{key}}}:{{{nonce}}}:{{{time}}}"),
    ("`Hmac ` was signed too: it stands in the header only", lambda key, nonce, time: f"Hmac {key}:{nonce}:{time}"),
    ("the public key was signed in lower case", lambda key, nonce, time: f"{key.lower()}:{nonce}:{time}"),
    ("the public key was signed in upper case", lambda key, nonce, time: f"{key.upper()}:{nonce}:{time}"),
    ("the parts were signed without colons", lambda key, nonce, time: f"{key}{nonce}{time}"),
)
_MACS: Sequence[MacWay] = (
    (None, lambda key, message: hmac.digest(key, message, "sha256")),
    ("key and message changed places", lambda key, message: hmac.digest(message, key, "sha256")),
    ("it is a plain SHA-256 of key and text: use HMAC", lambda key, message: hashlib.sha256(key + message).digest()),
    ("it is HMAC-SHA-1: use SHA-256", lambda key, message: hmac.digest(key, message, "sha1")),
    ("it is HMAC-SHA-512: use SHA-256", lambda key, message: hmac.digest(key, message, "sha512")),
)
_ENCODINGS: Sequence[EncodingWay] = (
    (None, _b64),
    ("the signature is hexadecimal: base64-encode its bytes", bytes.hex),
    ("the signature is hexadecimal: base64-encode its bytes", lambda raw: raw.hex().upper()),
    ("the signature is base64 of its hex digits: encode its bytes", lambda raw: _b64(raw.hex().encode())),
    ("the signature is in URL-safe base64: use + and /", lambda raw: base64.urlsafe_b64encode(raw).decode()),
    ("the signature's padding is lost: keep the =", lambda raw: _b64(raw).rstrip("=")),
    (
        "the signature is in URL-safe base64 without padding",
        lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("="),
    ),
)


def find(parts: Parts, key: KeyPair, body: bytes) -> Recipe | None:
    """The recipe with the fewest mistakes that makes the header's signature with this key and body; None if none does."""
    signature = parts.signature.encode()
    for keys, bodies, times, orders, macs in _fewest_first():
        secret = keys[1](key.private_key)
        tail, timestamp = bodies[1](body), times[1](parts.timestamp)
        if not secret or tail is None or timestamp is None:
            continue
        message = f"{orders[1](parts.public_key, parts.nonce, timestamp)}{tail}".encode()
        raw = macs[1](secret, message)
        for wrong, encode in _ENCODINGS:
            if hmac.compare_digest(encode(raw).encode(), signature):
                steps = (way[0] for way in (keys, bodies, times, orders, macs))
                return Recipe(tuple(mistake for mistake in (*steps, wrong) if mistake))
    return None


def _fewest_first() -> list[tuple[KeyWay, BodyWay, TimeWay, OrderWay, MacWay]]:
    every = itertools.product(_KEYS, _BODY_HASHES, _TIMES, _ORDERS, _MACS)
    counted = [(sum(wrong is not None for wrong, _ in ways), ways) for ways in every]
    return [ways for mistakes, ways in sorted(counted, key=lambda pair: pair[0]) if mistakes <= MOST_MISTAKES]


def _as_text(raw: bytes | None) -> bytes | None:
    return None if raw is None else raw.decode("utf-8", "replace").encode()
