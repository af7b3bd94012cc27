"""A last net under the log: whatever looks like a key, a signature or a token is cut out of each value of a line.

Nothing in here is meant to log one. This is for what others log, and for the day somebody forgets.
"""

from __future__ import annotations

import logging
import re

REMOVED = "[removed]"
SILENT = logging.CRITICAL + 1

# Where a value may begin: not within a longer one, but after the escape of a line break or another character in JSON.
_START = r"(?:(?<![A-Za-z0-9+/])|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4}))"
_QUOTES = r"[\\\"'\s]*"
_SECRET = re.compile(
    rf"{_START}(?i:bearer|hmac)\s+[A-Za-z0-9._~+/:=-]{{8,}}"  # an Authorization value
    rf"|(?<![_-]){_START}eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"  # a JSON Web Token
    rf"|{_START}[A-Za-z0-9+/]{{43}}=(?![A-Za-z0-9+/=])"  # base64 of 32 bytes: a private key, a signature
    # An AWS session token under its name, whatever quotes or escapes stand around it, and a signature of SigV4.
    rf"|(?P<session>(?i:session_?token|x-amz-security-token){_QUOTES}[:=]{_QUOTES})[A-Za-z0-9+/=_.~%-]{{8,}}"
    rf"|(?P<signed>(?i:signature){_QUOTES}[:=]{_QUOTES})[0-9a-f]{{64}}\b"
    # To the quote that ends it, over the two escapes that a key or a token may be written with.
    r"|(?P<named>(?i:privateKey|accessToken)\\*[\"']\s*:\s*\\*(?P<quote>[\"']))(?:(?!(?P=quote))[^\\]|\\+(?:/|u[0-9a-fA-F]{4}))+"
)
_KEPT = r"\g<session>\g<signed>\g<named>"  # names and quotes: what was JSON stays JSON
_SECRET_NAMES = frozenset(
    {"privatekey", "accesstoken", "sessiontoken", "xamzsecuritytoken", "signature", "authorization"}
)

# What these say holds whole responses of Secrets Manager and requests to Imburse: botocore at DEBUG, but urllib3 at WARNING
# too, with the headers of an answer that it cannot parse. They log past our formatter, so they do not log at all.
_TALKATIVE = ("boto3", "botocore", "urllib3", "requests", "charset_normalizer")


def redact(text: str) -> str:
    """The text without anything that looks like a key, a signature or a token."""
    return _SECRET.sub(_KEPT + REMOVED, text)


def redacted(value: object) -> object:
    """A JSON value without anything that looks like a key, a signature or a token, or stands under the name of one."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if isinstance(value, dict):
        return {
            redact(name): REMOVED if isinstance(item, str | list | dict) and _is_secret(name) else redacted(item)
            for name, item in value.items()
        }
    return value


def _is_secret(name: str) -> bool:
    return name.lower().replace("_", "").replace("-", "") in _SECRET_NAMES


def silence_libraries() -> None:
    """Keep the libraries quiet at every level, however low the root logger is set."""
    for library in map(logging.getLogger, _TALKATIVE):
        if library.level != SILENT:  # setting it makes logging look at every logger there is
            library.setLevel(SILENT)
