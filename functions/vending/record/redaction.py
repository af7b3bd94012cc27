"""A last net under the log: whatever looks like a key, a signature or a token is cut out of the finished line.

Nothing in here is meant to log one. This is for what others log, and for the day somebody forgets.
"""

from __future__ import annotations

import logging
import re

REMOVED = "[removed]"

_SECRET = re.compile(
    r"(?i:\b(?:bearer|hmac)\s+)[A-Za-z0-9._~+/:=-]{8,}"  # an Authorization value
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"  # a JSON Web Token
    r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=(?![A-Za-z0-9+/=])"  # base64 of 32 bytes: a private key, a signature
    r"|(?i:(?<=privateKey\":\")|(?<=accessToken\":\")|(?<=privateKey\": \")|(?<=accessToken\": \"))[^\"]+"
)

# What these say holds whole responses of Secrets Manager and requests to Imburse: botocore at DEBUG, but urllib3 at WARNING
# too, with the headers of an answer that it cannot parse. They log past our formatter, so they do not log at all.
_TALKATIVE = ("boto3", "botocore", "urllib3", "requests", "charset_normalizer")


def redact(text: str) -> str:
    """The text without anything that looks like a key, a signature or a token."""
    return _SECRET.sub(REMOVED, text)


def silence_libraries() -> None:
    """Keep the libraries quiet at every level, however low the root logger is set."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
