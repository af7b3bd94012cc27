"""A last net under the log: whatever looks like a key, a signature or a token is cut out of the finished line.

Nothing in here is meant to log one. This is for what others log, and for the day somebody forgets.
"""

from __future__ import annotations

import logging
import re

REMOVED = "[removed]"
SILENT = logging.CRITICAL + 1

_SECRET = re.compile(
    r"(?i:\b(?:bearer|hmac)\s+)[A-Za-z0-9._~+/:=-]{8,}"  # an Authorization value
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"  # a JSON Web Token
    r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=(?![A-Za-z0-9+/=])"  # base64 of 32 bytes: a private key, a signature
    # An AWS session token under its name, whatever quotes or escapes stand around it, and a signature of SigV4.
    r"|(?i:session_?token|x-amz-security-token)[\\\"'\s]*[:=][\\\"'\s]*[A-Za-z0-9+/=_.~%-]{8,}"
    r"|(?i:signature)[\\\"'\s]*[:=][\\\"'\s]*[0-9a-f]{64}\b"
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
    for library in map(logging.getLogger, _TALKATIVE):
        if library.level != SILENT:  # setting it makes logging look at every logger there is
            library.setLevel(SILENT)
