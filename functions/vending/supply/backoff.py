"""Patience with Imburse that outlives a run: when a credential's refill failed, nobody tries again until its time.

| item | pk | sk | attributes |
|---|---|---|---|
| backoff | `backoff#<credential>` | `backoff` | until (seconds), failures in a row, code of the last, public_key that failed |
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from secrets import SystemRandom

from imburse_auth.credential import CredentialId
from imburse_auth.errors import SecretsUnavailable, UpstreamThrottled, UpstreamUnavailable, VendingError
from vending.table import Table

BASE_SECONDS = 10.0  # doubled with each failure in a row, up to
CAP_SECONDS = 60.0  # while Imburse is down or busy: it may be back any minute, and
REFUSED_CAP_SECONDS = 900.0  # while it will not have the key: asking on would only get us locked out
KEPT_SECONDS = 3600

# Not `random`: restored from one SnapStart snapshot, all environments would come back in step.
_between = SystemRandom().uniform


class Backoff:
    """How long to leave Imburse alone, by credential. Everything raises TableUnavailable."""

    def __init__(
        self,
        table: Table,
        *,
        clock: Callable[[], float] = time.time,
        between: Callable[[float, float], float] = _between,
    ) -> None:
        self._table = table
        self._clock = clock
        self._between = between

    def failures(self, credential: CredentialId, public_key: str) -> int:
        """How many runs failed in a row with this key; with another key, all is forgotten."""
        item = self._table.get(*_key(credential))
        return int(item["failures"]) if item is not None and item.get("public_key") == public_key else 0

    def over(self, credential: CredentialId, public_key: str) -> bool:
        """Whether the time has come to try again."""
        item = self._table.get(*_key(credential))
        return item is None or item.get("public_key") != public_key or self._clock() >= int(item["until"])

    def note(self, credential: CredentialId, public_key: str, failures: int, error: VendingError) -> None:
        """Leave Imburse alone for a while, after so many failures in a row.

        By lot between half the time and the whole, so that credentials that failed together do not come back together, and
        not before Imburse said that it wants to be asked again.
        """
        passing = isinstance(error, (UpstreamUnavailable, UpstreamThrottled, SecretsUnavailable))
        longest = min(CAP_SECONDS if passing else REFUSED_CAP_SECONDS, BASE_SECONDS * 2 ** min(failures - 1, 16))
        seconds = max(self._between(longest / 2, longest), float(error.retry_after_seconds or 0))
        until = math.ceil(self._clock() + seconds)
        pk, sk = _key(credential)
        self._table.put(
            {
                "pk": pk,
                "sk": sk,
                "until": until,
                "failures": failures,
                "code": error.code,
                "public_key": public_key,
                "ttl": until + KEPT_SECONDS,
            }
        )

    def clear(self, credential: CredentialId) -> None:
        """Imburse gave a token: all is forgotten."""
        self._table.delete(*_key(credential))


def _key(credential: CredentialId) -> tuple[str, str]:
    return f"backoff#{credential}", "backoff"
