"""What can be seen of an Hmac header without the key: its form, its time, and the shape of its signature.

Nothing here repeats a part that could be a private key or an access token somebody pasted by mistake.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from imburse_vending.when import MILLISECONDS_ABOVE, how_long, relative

WINDOW_SECONDS = 300  # protocol.md, section 2
SIGNATURE_BYTES = 32
_OFFSET_SLACK_SECONDS = 120  # from making a header to checking it here
_QUARTER_SECONDS = 900
# The distances from UTC that are in use, in hours: a header that is 15 minutes old is not from a zone.
_OFFSETS_HOURS = {*range(-12, 15), -9.5, -3.5, -2.5, 3.5, 4.5, 5.5, 5.75, 6.5, 8.75, 9.5, 10.5, 12.75, 13.75} - {0}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NONCE = re.compile(r"[A-Za-z0-9]+")
_NUMBER = re.compile(r"[0-9]{1,20}")
_ISO_8601 = re.compile(r"(?<=:)([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9]{2}:?[0-9]{2})?)(?=:[^:]*$)")
_HEX = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `wrong` is what Imburse would refuse it for; `fix` says what to do about it."""

    part: str
    says: str
    fix: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether there is something to mend."""
        return self.fix is not None


@dataclass(frozen=True)
class Parts:
    """The four parts of a header as well as they could be told apart; hidden from repr, as they may be anything."""

    public_key: str = field(repr=False)
    nonce: str = field(repr=False)
    timestamp: str = field(repr=False)
    signature: str = field(repr=False)

    @property
    def seconds(self) -> int | None:
        """The timestamp as a number, whatever its unit; None if it is none."""
        return int(self.timestamp) if _NUMBER.fullmatch(self.timestamp) else None


def take_apart(header: str, *, now: float) -> tuple[Parts | None, list[Finding]]:
    """The parts, None if there are not four, and what was found, in the order of the header."""
    findings: list[Finding] = []
    text = _frame(header, findings)
    if text is None:
        return None, findings
    written = _ISO_8601.search(text)
    pieces = text.split(":")
    if written:  # it has colons of its own
        pieces = [*text[: written.start() - 1].split(":"), written[1], text[written.end() + 1 :]]
    if len(pieces) < 4:
        what = f"{len(pieces)} parts, not 4"
        findings.append(Finding("form", what, "Hmac publicKey:nonce:timestamp:signature, with colons in between"))
        return None, findings
    if len(pieces) > 4:
        what = f"{len(pieces)} parts, not 4: there is a colon in the nonce"
        findings.append(Finding("form", what, "make the nonce of letters and digits only"))
    else:
        findings.append(Finding("form", "4 parts"))
    parts = Parts(pieces[0], ":".join(pieces[1:-2]), pieces[-2], pieces[-1])
    findings += [_public_key(parts.public_key), _nonce(parts.nonce), _timestamp(parts.seconds, now)]
    findings.append(_signature(parts.signature))
    return parts, findings


def _frame(header: str, findings: list[Finding]) -> str | None:
    """What comes after the scheme, without what does not belong there; None if it is another kind of header."""
    text = header.removesuffix("\n").removesuffix("\r")
    if text != text.strip():
        findings.append(Finding("white space", "at an end of the header", "strip it"))
    text = text.strip()
    if text[:1] in "'\"" and text[-1:] == text[:1]:
        text = text[1:-1].strip()
    text = re.sub(r"^authorization\s*:\s*", "", text, flags=re.IGNORECASE)
    scheme, space, rest = text.partition(" ")
    if scheme.lower() == "bearer":
        fix = "Bearer goes with the access token that the Hmac header is exchanged for, not with a signature"
        findings.append(Finding("scheme", "Bearer, not Hmac", fix))
        return None
    if not space and scheme.lower().startswith("hmac") and ":" in scheme:
        findings.append(Finding("scheme", "no space after it", "write `Hmac `, then the four parts"))
        rest = scheme[4:].lstrip(":")
    elif not space or ":" in scheme:
        findings.append(Finding("scheme", "none", "begin with `Hmac `"))
        rest = text
    elif scheme != "Hmac":
        findings.append(Finding("scheme", "misspelt", "write `Hmac`, with these capitals"))
    else:
        findings.append(Finding("scheme", "Hmac"))
    if any(brace in rest for brace in "{}<>[]"):
        findings.append(Finding("brackets", "left in", "the guide's {...} marks a placeholder: send what is inside it"))
        rest = re.sub(r"[{}<>\[\]]", "", rest)
    if re.search(r"\s", rest.strip()):
        findings.append(Finding("white space", "between or within the parts", "take it out"))
        rest = re.sub(r"\s*:\s*", ":", rest)
    return rest.strip()


def _public_key(text: str) -> Finding:
    if _UUID.fullmatch(text):
        return Finding("public key", text)
    if len(_decoded(text) or b"") == SIGNATURE_BYTES:
        fix = "if it is the private key, it has left the server: delete it in the Tenant Portal and make another"
        return Finding("public key", "has the form of a private key", fix)
    if not text:
        return Finding("public key", "empty", "put the public key first")
    return Finding("public key", "is there, though no UUID")


def _nonce(text: str) -> Finding:
    if not text:
        return Finding("nonce", "empty", "make a new random one for every request, of letters and digits")
    if not (_NONCE.fullmatch(text) and text.isascii()):
        fix = "letters and digits only: a UUID without its dashes, or base64 without +, / and ="
        return Finding("nonce", "has other characters than letters and digits", fix)
    return Finding("nonce", f"{len(text)} letters and digits")


def _timestamp(number: int | None, now: float) -> Finding:
    seconds_fix = "send whole seconds since 1970, UTC"
    if number is None:
        return Finding("timestamp", "is no whole number", seconds_fix)
    if number > MILLISECONDS_ABOVE:
        kinds = {1000: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
        kind = next((name for size, name in kinds.items() if abs(number / size - now) < 400 * 86_400), "no seconds")
        return Finding("timestamp", f"in {kind}" if kind != "no seconds" else kind, seconds_fix)
    late = number - now
    at = f"{datetime.fromtimestamp(number, UTC):%Y-%m-%d %H:%M:%S} UTC, {relative(late)}"
    if abs(late) <= WINDOW_SECONDS:
        return Finding("timestamp", at)
    offset = round(late / _QUARTER_SECONDS) * _QUARTER_SECONDS
    # A fresh header made of local time is off by that zone's distance from UTC.
    if offset / 3600 in _OFFSETS_HOURS and abs(late - offset) <= _OFFSET_SLACK_SECONDS:
        sign, hours, minutes = "+" if offset > 0 else "-", abs(offset) // 3600, abs(offset) % 3600 // 60
        fix = f"if it was made just now, local time (UTC{sign}{hours}:{minutes:02}) was taken for UTC; else sign afresh"
        return Finding("timestamp", at, fix)
    if late < 0:
        return Finding(
            "timestamp", at, f"it is too old, by {how_long(late + WINDOW_SECONDS)}: sign afresh, once a request"
        )
    return Finding("timestamp", at, "it lies in the future: look at the clock (imburse-vending doctor)")


def _signature(text: str) -> Finding:
    decoded = _decoded(text)
    if decoded is not None and len(decoded) == SIGNATURE_BYTES:
        return Finding("signature", "base64 of 32 bytes")
    if _HEX.fullmatch(text) and len(text) == 2 * SIGNATURE_BYTES:
        return Finding("signature", "hexadecimal", "encode the 32 bytes of the HMAC in base64")
    if decoded is not None and _HEX.fullmatch(decoded.decode("latin-1")) and len(decoded) == 2 * SIGNATURE_BYTES:
        return Finding(
            "signature", "base64 of a hexadecimal text", "encode the 32 bytes themselves, not their hex digits"
        )
    if "%" in text:
        return Finding("signature", "percent-encoded", "send it as base64: a header is no URL")
    if " " in text:
        return Finding("signature", "has spaces", "something decoded it like a URL: + became a space")
    standard = text.replace("-", "+").replace("_", "/")
    padded = standard.rstrip("=") + "=" * (-len(standard.rstrip("=")) % 4)
    whole = len(_decoded(padded) or b"") == SIGNATURE_BYTES
    if whole and standard != text:
        return Finding(
            "signature", "in URL-safe base64", "use the standard alphabet, with + and /, and the = at its end"
        )
    if whole:
        return Finding("signature", "its padding is lost", "keep the = at its end")
    if decoded is None:
        return Finding("signature", "is no base64", "encode the 32 bytes of the HMAC in base64")
    return Finding("signature", f"{len(decoded)} bytes, not 32", "it was cut, or is no HMAC-SHA-256")


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
