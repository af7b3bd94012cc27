"""Tokens exchanged ahead of need, one item each in the table, and each handed out at most once.

A claim deletes first and hands out after: whoever crashes in between has wasted a token, never repeated one. It deletes what it
saw in a look at the pool, or what an earlier claim saw there and left (`leftovers.py`): one look then does for several claims.

| item | pk | sk | attributes |
|---|---|---|---|
| token | `pool#<credential>` | `<expires, 12 digits>#<16 hex of its SHA-256>` | `Pooled`, in parts |
| demand | `demand#<credential>` | `<minute since the epoch, 10 digits>` | n: tokens asked for in that minute |
| level | `level#<credential>` | `level` | n: tokens above the low mark, as refill counted them, less what was asked for since |
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from secrets import SystemRandom

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from vending.supply.leftovers import Leftovers, Seen
from vending.table import PATIENCE_SECONDS, Item, Table, TableUnavailable

# Claimers choose among so many of the soonest to expire, and among twice as many at each look after the first. Who found what
# it remembered gone is in a crowd, and looks twice as wide the next time, up to four times: it then meets others less often.
HANDFUL = 16
WIDEST = 2
DRAWS = 3  # from one look: of 64 claimers at once three in four lose their first draw, and few their third
ROUNDS = 4  # looks before a claim gives up
THREADS = 32
DEMAND_MINUTES = 5  # the busiest of the last five minutes is the demand: bursts come again
COUNTER_SECONDS = 3600

_DESCRIPTION = ("sk", "expires", "public_key", "account", "tenant", "base_url")

# Not `random`: its state is part of a SnapStart snapshot, and all restored environments would draw the same lots.
_by_lot = SystemRandom().randrange


@dataclass(frozen=True)
class Pooled:
    """A token with what belongs to it: where it may be used, and whose key it was made with."""

    token: AccessToken
    base_url: str
    public_key: str
    correlation_id: str | None


class Pool:
    """The pools of all credentials. One object serves all threads. Everything raises TableUnavailable."""

    def __init__(
        self,
        table: Table,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        choose: Callable[[int], int] = _by_lot,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._choose = choose
        self._patience_seconds = patience_seconds
        self._leftovers = Leftovers()

    def claim(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        *,
        least_seconds: int,
        base_url: str | None = None,
        on_wasted: Callable[[], None] = lambda: None,
    ) -> Pooled | None:
        """One token with at least `least_seconds` left, which is out of the table by now; None if there is none to be had.

        Only a token of this very key, account and tenant (and `base_url`, if one is given). Another is left for the refill to
        throw away: the key may have been rotated, and it may be ours that is the old one. `on_wasted` is told of one that was
        taken and turned out useless. Raises TableUnavailable, also when no call is left to make within 0.3 s.
        """
        claimed: list[Pooled] = []
        self.claim_many(
            credential,
            api_key,
            1,
            least_seconds=least_seconds,
            base_url=base_url,
            on_claim=claimed.append,
            on_wasted=on_wasted,
        )
        return claimed[0] if claimed else None

    def claim_many(
        self,
        credential: CredentialId,
        api_key: ApiKey,
        count: int,
        *,
        least_seconds: int,
        on_claim: Callable[[Pooled], None],
        base_url: str | None = None,
        on_wasted: Callable[[], None] = lambda: None,
    ) -> None:
        """Up to `count` tokens like `claim`'s, each given to `on_claim` as it comes, on any thread.

        Raises TableUnavailable, also when 0.3 s go by without a token; those that were given stay given.
        """
        pk, missing = _pool(credential), count
        progressed_at = self._monotonic()

        def take(sk: str) -> bool:
            nonlocal progressed_at
            self._check_patience(progressed_at)
            item = self._table.take(pk, sk)
            if item is None:
                return False
            progressed_at = self._monotonic()
            pooled = _read(item)
            if pooled is None or not _fits(pooled, api_key, base_url) or pooled.token.expires <= self._clock():
                on_wasted()
                return False
            on_claim(pooled)
            return True

        whose = _whose(api_key, base_url)
        seen = self._leftovers.pop(credential)
        wider = max(0, seen.wider - 1)
        earlier, left = seen.serving(
            whose, least_seconds=least_seconds, from_sk=self._sort_key(least_seconds), now=self._clock()
        )
        if len(left) >= missing:  # fewer would save no look, and come before it
            missing -= sum(_each(take, self._draw(left, missing)))
            if missing == 0:
                self._leftovers.put(credential, replace(seen, sort_keys=earlier + left))
                return
            wider = min(WIDEST, seen.wider + 1)
        for attempt in range(ROUNDS):
            self._check_patience(progressed_at)
            limit, looked_at = missing - 1 + HANDFUL * 2 ** min(wider + attempt, ROUNDS - 1), self._clock()
            candidates = self._table.query(
                pk, from_sk=self._sort_key(least_seconds), limit=limit, attributes=_DESCRIPTION
            )
            left = [str(item["sk"]) for item in candidates if _fits(_described(item), api_key, base_url)]
            if not left and len(candidates) < limit:
                return
            for _ in range(DRAWS):
                missing -= sum(_each(take, self._draw(left, missing)))
                if missing == 0:
                    self._leftovers.put(credential, Seen(whose, least_seconds, looked_at, wider, left))
                    return

    def put(self, credential: CredentialId, pooled: Pooled) -> None:
        """Add a token that nobody has seen yet. Its place is named by its own hash: put twice, it is there once."""
        token = pooled.token
        item: dict[str, str | int | None] = {
            "pk": _pool(credential),
            "sk": f"{token.expires:012d}#{token.fingerprint[:16]}",
            "token": token.value,
            "expires": token.expires,
            "account": token.account_id,
            "tenant": token.tenant_id,
            "base_url": pooled.base_url,
            "public_key": pooled.public_key,
            "correlation_id": pooled.correlation_id,
            "ttl": token.expires,
        }
        self._table.put({name: value for name, value in item.items() if value is not None})

    def depth(self, credential: CredentialId, *, least_seconds: int) -> int:
        """How many tokens have at least `least_seconds` left, of whichever key."""
        return len(self._table.query(_pool(credential), from_sk=self._sort_key(least_seconds), attributes=("expires",)))

    def purge(self, credential: CredentialId, *, public_key: str | None = None) -> int:
        """Throw away all tokens, or with `public_key` all but that key's. Answers how many."""
        self._leftovers.pop(credential)
        items = self._table.query(_pool(credential), attributes=("sk", "public_key"))
        return self._throw_away(
            credential, (i for i in items if public_key is None or i.get("public_key") != public_key)
        )

    def tidy(
        self, credential: CredentialId, api_key: ApiKey, *, least_seconds: int, base_url: str | None = None
    ) -> tuple[int, int]:
        """Throw away what expired unclaimed, and what `claim` would not answer for this key.

        Answers how many tokens with at least `least_seconds` left there are, and how many were thrown away.
        """
        now = self._clock()
        useless, depth = [], 0
        for item in self._table.query(_pool(credential), attributes=_DESCRIPTION):
            pooled = _described(item)
            if pooled is None or pooled.token.expires <= now or not _fits(pooled, api_key, base_url):
                useless.append(item)
            elif pooled.token.expires >= now + least_seconds:
                depth += 1
        return depth, self._throw_away(credential, useless)

    def count_demand(self, credential: CredentialId, count: int) -> None:
        """Note that `count` tokens were asked for, whether the pool had them or not."""
        now = self._clock()
        self._table.add(_demand(credential), _minute(now), count, ttl=int(now) + COUNTER_SECONDS)

    def demand_per_minute(self, credential: CredentialId) -> float:
        """Tokens asked for in the busiest of the last five minutes, the running one among them."""
        since = _minute(self._clock() - 60 * (DEMAND_MINUTES - 1))
        counters = self._table.query(_demand(credential), from_sk=since, attributes=("n",))
        return float(max((int(counter["n"]) for counter in counters), default=0))

    def set_level(self, credential: CredentialId, above_low_mark: int) -> None:
        """Say how many tokens may go until the pool wants filling."""
        ttl = int(self._clock()) + COUNTER_SECONDS
        self._table.put({"pk": _level(credential), "sk": "level", "n": above_low_mark, "ttl": ttl})

    def raise_level(self, credential: CredentialId, count: int) -> None:
        """Note that `count` tokens came."""
        self._table.add(_level(credential), "level", count, ttl=int(self._clock()) + COUNTER_SECONDS)

    def lower_level(self, credential: CredentialId, count: int) -> int:
        """Note that `count` tokens go. Answers how many more may; 0 or less at the low mark, or if it was never filled."""
        left = self._table.add(_level(credential), "level", -count, ttl=int(self._clock()) + COUNTER_SECONDS)
        return left or 0

    def _throw_away(self, credential: CredentialId, items: Iterable[Item]) -> int:
        pk = _pool(credential)
        return sum(_each(lambda sk: self._table.take(pk, sk) is not None, [str(item["sk"]) for item in items]))

    def _draw(self, left: list[str], count: int) -> list[str]:
        """So many out of them, by lot: two claimers that see the same handful then rarely want the same token."""
        return [left.pop(self._choose(len(left))) for _ in range(min(count, len(left)))]

    def _sort_key(self, least_seconds: int) -> str:
        return f"{math.ceil(self._clock()) + least_seconds:012d}"

    def _check_patience(self, since: float) -> None:
        if self._monotonic() - since >= self._patience_seconds:
            raise TableUnavailable("slow")


def _each(work: Callable[[str], bool], sort_keys: list[str]) -> list[bool]:
    """The work on each, on up to 32 threads if there are many. Raises the first error, after all have ended."""
    if len(sort_keys) <= 1:
        return [work(sk) for sk in sort_keys]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(len(sort_keys), THREADS), "pool") as threads:
        return list(threads.map(work, sort_keys))


def _read(item: Item) -> Pooled | None:
    try:
        expires, account, tenant, correlation_id = (
            item["expires"],
            item.get("account"),
            item.get("tenant"),
            item.get("correlation_id"),
        )
        token = AccessToken(
            str(item["token"]),
            int(expires),
            None if account is None else str(account),
            None if tenant is None else str(tenant),
        )
        return Pooled(
            token,
            str(item["base_url"]),
            str(item["public_key"]),
            None if correlation_id is None else str(correlation_id),
        )
    except (KeyError, ValueError):
        return None


def _described(item: Item) -> Pooled | None:
    """A token without its value, which nobody is to have yet."""
    return _read(item | {"token": ""})  # nosec B105 # no value is what is meant


def _fits(pooled: Pooled | None, api_key: ApiKey, base_url: str | None) -> bool:
    """Whether the token was made with what the credential is now: its key, the ids in its headers, its host."""
    return (
        pooled is not None
        and pooled.public_key == api_key.public_key
        and pooled.token.account_id == api_key.account_id
        and pooled.token.tenant_id == api_key.tenant_id
        and base_url in (None, pooled.base_url)
    )


def _whose(api_key: ApiKey, base_url: str | None) -> tuple[str | None, ...]:
    """All that `_fits` looks at."""
    return api_key.public_key, api_key.account_id, api_key.tenant_id, base_url


def _pool(credential: CredentialId) -> str:
    return f"pool#{credential}"


def _demand(credential: CredentialId) -> str:
    return f"demand#{credential}"


def _level(credential: CredentialId) -> str:
    return f"level#{credential}"


def _minute(now: float) -> str:
    return f"{max(0, int(now // 60)):010d}"
