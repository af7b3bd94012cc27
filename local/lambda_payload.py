"""What Lambda refuses about a request before any function sees it."""

from __future__ import annotations

import base64
import json
import re

MAX_DEPTH = 1000
"""The nesting that the JSON parser of the real service accepts."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[{]|[\]}]")


class InvalidContentError(Exception):
    """The payload or the client context is not what Lambda accepts."""


def check_payload(payload: bytes) -> None:
    """Refuses a payload that is not JSON in UTF-8, or is nested deeper than MAX_DEPTH. Raises InvalidContentError."""
    if not payload:
        return  # Lambda gives the function {} then
    try:
        json.loads(payload.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise InvalidContentError(f"Could not parse request body into json: {exc}") from exc
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and _depth(payload) > MAX_DEPTH:
        raise InvalidContentError(f"Could not parse request body into json: nested deeper than {MAX_DEPTH}")


def client_context(header: str | None) -> str | None:
    """The X-Amz-Client-Context header as JSON text in ASCII, on one line. Raises InvalidContentError."""
    if not header:
        return None
    try:
        value = json.loads(base64.b64decode(header, validate=True))
    except (ValueError, RecursionError) as exc:
        raise InvalidContentError("Client context must be a valid Base64-encoded JSON object.") from exc
    if not isinstance(value, dict):
        raise InvalidContentError("Client context must be a valid Base64-encoded JSON object.")
    return json.dumps(value, separators=(",", ":"))  # ASCII without line breaks: it becomes a header again


def _depth(payload: bytes) -> int:
    """The nesting of a payload that is known to be JSON."""
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(_STRING.sub(b"", payload)):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
