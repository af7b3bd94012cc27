"""Which 401 a new token cures (protocol.md, section 5), told apart conservatively."""

from __future__ import annotations

from collections.abc import Collection

from imburse_auth.client.failed import read_json
from imburse_auth.errors import UpstreamAnswer

SPENT_CODES = frozenset(
    {
        "ACCESS_TOKEN_ALREADY_USED",
        "ACCESS_TOKEN_EXPIRED",
        # The key behind the token was rotated away: a new token comes from the new key.
        "API_KEY_REVOKED",
        "API_KEY_NOT_FOUND",
    }
)
MAX_BODY_BYTES = 64 * 1024


def is_spent(status: int, body: bytes, *, codes: Collection[str], past_expiry: bool) -> bool:
    """Whether an answer says that its token is spent or expired.

    The vendor prints no list of codes, so a 401 with another one, or with none, counts only if the token is past its expiry:
    a new token would not cure a missing role or a wrong account, and each try costs one.
    """
    if status != 401:
        return False
    return past_expiry or UpstreamAnswer.of(status, read_json(body)).error_code in codes
