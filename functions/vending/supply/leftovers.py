"""What a claim saw of a pool and left there: where to try first at the next claim, without another look. Sort keys, no tokens.

Nothing is handed out for being remembered: the conditional delete decides as ever, and who tries what is gone has lost a call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from imburse_auth.credential import CredentialId

KEPT_SECONDS = 5.0  # an older look says little: others claim too, and what was put since may end sooner
CREDENTIALS = 100  # of at most 127 sort keys of 29 characters, so 1.1 MB at the most


@dataclass(frozen=True)
class Seen:
    """What a look showed, less what was tried since.

    It was made `at` so many seconds since the epoch, for tokens of `whose` making with `least_seconds` left; `wider` is how
    often the usual handful was doubled for it. `sort_keys` are in their order, each with the token's end first.
    """

    whose: tuple[str | None, ...] = ()
    least_seconds: int = 0
    at: float = 0.0
    wider: int = 0
    sort_keys: list[str] = field(default_factory=list)

    def serving(
        self, whose: tuple[str | None, ...], *, least_seconds: int, from_sk: str, now: float
    ) -> tuple[list[str], list[str]]:
        """The sort keys before `from_sk`, and those from there on, which are what a look for such tokens would show first.

        None after another key, tenant or host came, for tokens that may end sooner than it looked for, and after 5 s by the
        wall clock, whichever way that was set: the monotonic one may stand still while Lambda keeps an environment frozen.
        """
        if whose != self.whose or least_seconds < self.least_seconds or not 0 <= now - self.at < KEPT_SECONDS:
            return [], []
        return [sk for sk in self.sort_keys if sk < from_sk], [sk for sk in self.sort_keys if sk >= from_sk]


class Leftovers:
    """The last look at each pool, of the 100 credentials that were claimed from last. Empty until the first claim."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[CredentialId, Seen] = OrderedDict()

    def pop(self, credential: CredentialId) -> Seen:
        """What is remembered, which is forgotten with that: no other thread tries the same keys, and no failure keeps them."""
        with self._lock:
            return self._seen.pop(credential, None) or Seen()

    def put(self, credential: CredentialId, seen: Seen) -> None:
        """Remember that instead of whatever was remembered."""
        with self._lock:
            self._seen[credential] = seen
            self._seen.move_to_end(credential)
            if len(self._seen) > CREDENTIALS:
                self._seen.popitem(last=False)
