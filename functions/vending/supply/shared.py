"""One token for all callers of a credential, where its tenant's contract allows that (`"reuse": "shared"`).

In memory first, then in the table, then one exchange for the whole fleet, until a quarter of the token's life is left.

| item | pk | sk | attributes |
|---|---|---|---|
| token | `shared#<credential>` | `token` | as a pooled one, `obtained` and `dies` (seconds since the epoch), `fence` |
| lease | `lease#share#<credential>` | `lease` | fence, until_ms |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from secrets import SystemRandom

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import UpstreamThrottled, UpstreamUnavailable
from imburse_auth.retry import Deadline
from vending.supply.inline import Supplied
from vending.table import Item, Table, TableUnavailable

LIFE_LEFT = 1 / 4  # of a token's life, at which it is exchanged anew
RECHECK_SECONDS = 5.0  # how long memory serves before the table is asked whether the token was purged or replaced
JUST_MADE_SECONDS = 60  # a younger token is as good as it gets: whoever wants one to live longer does not get another
WAIT_SECONDS = 2.0  # for another environment's exchange, before one of our own
POLL_SECONDS = (0.05, 0.25)  # at random in between, so that waiters do not come in step
LEASE_SECONDS = 10.0  # an exchange with its retries rarely takes longer, and if it does another may try
# An item that DynamoDB drops begins its fencing numbers anew, so not before its token is dead.
LEASE_KEPT_SECONDS = 3_600

# Not `random`: its state is part of a SnapStart snapshot, and all restored environments would poll in step.
_jitter = SystemRandom().uniform


@dataclass(frozen=True)
class _Shared:
    """A token, and whose key made it.

    `obtained` is when it was got, `dies` when its life ends, by our clock: Imburse's may be another. Until `memory_until`
    memory serves it without asking the table. All in seconds since the epoch.
    """

    supplied: Supplied
    public_key: str
    obtained: int
    dies: int
    memory_until: float

    def serves(self, *, now: float, least_seconds: int) -> bool:
        """Whether it has more than a quarter of its life left and, unless it was just made, the seconds asked for."""
        left, life = self.dies - now, self.dies - self.obtained
        return left > life * LIFE_LEFT and (left >= least_seconds or now - self.obtained < JUST_MADE_SECONDS)


class Shared:
    """The shared tokens of all credentials. One object serves all threads.

    It never fails a vend for the table's sake: without one each environment exchanges for itself, and `on_unavailable` is
    told. `now` is the time by the clock of a base URL's host, ours by default.
    """

    def __init__(
        self,
        table: Table,
        *,
        now: Callable[[str], float] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = _jitter,
        on_unavailable: Callable[[], None] = lambda: None,
    ) -> None:
        self._table = table
        self._now = now or (lambda _: clock())
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._jitter = jitter
        self._on_unavailable = on_unavailable
        self._memory: dict[CredentialId, _Shared] = {}

    def token(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        exchange: Callable[[], Supplied],
        *,
        least_seconds: int = 0,
        base_url: str | None = None,
    ) -> Supplied:
        """The token that serves everybody now, `source` shared, made with this very key (for `base_url`, if one is given).

        If Imburse does not answer, one in the last quarter of its life serves on, while it has `least_seconds`. Raises what
        `exchange` raises.
        """

        def fits(shared: _Shared | None) -> bool:
            return shared is not None and _fits(shared, api_key, base_url)

        known = self._memory.get(credential)
        known = known if fits(known) else None
        now = self._clock()
        if known is not None and now < known.memory_until and known.serves(now=now, least_seconds=least_seconds):
            return known.supplied
        try:
            try:
                found = self._found_or_exchanged(credential, api_key, exchange, fits, least_seconds)
            except TableUnavailable:
                self._on_unavailable()
                if known is not None and known.serves(now=now, least_seconds=least_seconds):
                    found = replace(known, memory_until=now + RECHECK_SECONDS)
                else:
                    found = self._made(api_key, exchange)
        except (UpstreamThrottled, UpstreamUnavailable):
            last = self._last(credential, known)
            if last is None or not fits(last) or last.dies - self._clock() <= least_seconds:
                raise
            return last.supplied
        self._memory[credential] = found
        return found.supplied

    def purge(self, credential: CredentialId, *, public_key: str | None = None) -> int:
        """Throw the token away, or with `public_key` only one that this key made.

        Here and in the table at once, in other environments' memory when they look again, within 5 s. Answers how many were
        thrown away, 0 or 1. Raises TableUnavailable.
        """
        if public_key is not None:
            item = self._table.get(_token(credential), "token")
            if item is None or item.get("public_key") != public_key:
                return 0
        self._memory.pop(credential, None)
        return 1 if self._table.take(_token(credential), "token") is not None else 0

    def _found_or_exchanged(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        exchange: Callable[[], Supplied],
        fits: Callable[[_Shared | None], bool],
        least_seconds: int,
    ) -> _Shared:
        """From the table, or made under the lease, or after a while of waiting made without it. Raises TableUnavailable."""
        patience = Deadline.after(WAIT_SECONDS, self._monotonic)
        while True:
            found = self._read(credential)
            if found is not None and fits(found) and found.serves(now=self._clock(), least_seconds=least_seconds):
                return found
            fence = self._lease(credential)
            if fence is not None:
                return self._make_for_all(credential, api_key, exchange, fence)
            pause = self._jitter(*POLL_SECONDS)
            if pause > patience.remaining_seconds():
                return self._made(api_key, exchange)
            self._sleep(pause)

    def _make_for_all(
        self, credential: CredentialId, api_key: ApiKey, exchange: Callable[[], Supplied], fence: int
    ) -> _Shared:
        try:
            made = self._made(api_key, exchange)
        except Exception:
            self._hold(credential, fence, 0)  # whoever waits may try at once
            raise
        # Held on to while it is written: a lease that ran out is another's by now, and so is the newer token.
        if self._hold(credential, fence, LEASE_SECONDS) and self._write(credential, made, fence):
            self._hold(credential, fence, 0)
        return made

    def _made(self, api_key: ApiKey, exchange: Callable[[], Supplied]) -> _Shared:
        supplied = replace(exchange(), source="shared")
        now = self._clock()
        dies = now + supplied.token.expires - self._now(supplied.base_url)
        return _Shared(supplied, api_key.public_key, int(now), int(dies), now + RECHECK_SECONDS)

    def _last(self, credential: CredentialId, known: _Shared | None) -> _Shared | None:
        try:
            return self._read(credential)
        except TableUnavailable:
            return known

    def _lease(self, credential: CredentialId) -> int | None:
        now = self._clock()
        return self._table.lease(
            _lease(credential),
            "lease",
            now_ms=int(now * 1000),
            until_ms=int((now + LEASE_SECONDS) * 1000),
            ttl=int(now) + LEASE_KEPT_SECONDS,
        )

    def _hold(self, credential: CredentialId, fence: int, seconds: float) -> bool:
        # The token is made: a table that fails from here on costs another exchange elsewhere, and nothing here.
        now = self._clock()
        try:
            return self._table.hold(
                _lease(credential),
                "lease",
                fence=fence,
                now_ms=int(now * 1000),
                until_ms=int((now + seconds) * 1000),
            )
        except TableUnavailable:
            self._on_unavailable()
            return False

    def _write(self, credential: CredentialId, made: _Shared, fence: int) -> bool:
        token = made.supplied.token
        item: dict[str, str | int | None] = {
            "pk": _token(credential),
            "sk": "token",
            "token": token.value,
            "expires": token.expires,
            "account": token.account_id,
            "tenant": token.tenant_id,
            "base_url": made.supplied.base_url,
            "public_key": made.public_key,
            "correlation_id": made.supplied.correlation_id,
            "obtained": made.obtained,
            "dies": made.dies,
            "fence": fence,
            "ttl": made.dies,
        }
        try:
            self._table.put({name: value for name, value in item.items() if value is not None})
        except TableUnavailable:
            self._on_unavailable()
            return False
        return True

    def _read(self, credential: CredentialId) -> _Shared | None:
        item = self._table.get(_token(credential), "token")
        return None if item is None else _shared(item, memory_until=self._clock() + RECHECK_SECONDS)


def _shared(item: Item, *, memory_until: float) -> _Shared | None:
    def text(name: str) -> str | None:
        return str(item[name]) if name in item else None

    try:
        token = AccessToken(str(item["token"]), int(item["expires"]), text("account"), text("tenant"))
        supplied = Supplied(token, str(item["base_url"]), text("correlation_id"), "shared")
        return _Shared(supplied, str(item["public_key"]), int(item["obtained"]), int(item["dies"]), memory_until)
    except (KeyError, ValueError):
        return None  # written by another version: as good as none


def _fits(shared: _Shared, api_key: ApiKey, base_url: str | None) -> bool:
    """Whether it was made with what the credential is now: its key, the ids in its headers, its host."""
    token = shared.supplied.token
    return (
        shared.public_key == api_key.public_key
        and (token.account_id, token.tenant_id) == (api_key.account_id, api_key.tenant_id)
        and base_url in (None, shared.supplied.base_url)
    )


def _token(credential: CredentialId) -> str:
    return f"shared#{credential}"


def _lease(credential: CredentialId) -> str:
    return f"lease#share#{credential}"
