"""A second look at "handed out once": the tokens that passed through this execution environment, by fingerprint."""

from __future__ import annotations

import threading
from collections import OrderedDict

REMEMBERED = (
    20_000  # about 4 MB; a token lives 30 minutes, and 20,000 in 30 minutes is 11 a second through one environment
)


class Once:
    """Remembers the last 20,000 fingerprints.

    Imburse makes every token anew, so this never says no, until a cache or a proxy on the way answers twice with the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, None] = OrderedDict()

    def first_time(self, fingerprint: str) -> bool:
        """True the first time a fingerprint is shown, False ever after."""
        with self._lock:
            if fingerprint in self._seen:
                return False
            self._seen[fingerprint] = None
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return True
