"""Tokens by an exchange in line: the caller waits while Imburse is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import UpstreamProtocol, UpstreamThrottled, VendingError
from imburse_auth.exchange import Attempt, Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore
from imburse_auth.transport import MAX_CONNECTIONS
from vending.supply.once import Once

Source = Literal["exchange", "pool", "shared"]


@dataclass
class Effort:
    """What one visit cost, for the metrics. Threads append to it, which is atomic.

    `troubles` are for the log: why the pool did not answer, by code.
    """

    attempts: list[Attempt] = field(default_factory=list)
    secret_reads: list[None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def count_secret_read(self) -> None:
        """One more call to Secrets Manager."""
        self.secret_reads.append(None)

    def note(self, metric: str, times: int = 1) -> None:
        """Something else that is counted, by the name of its metric."""
        self.notes.extend([metric] * times)


@dataclass(frozen=True)
class Supplied:
    """A token that is now the caller's, where it may be used, the correlation id Imburse gave it under, and where it was got.

    It is the caller's alone, unless its source is `shared`.
    """

    token: AccessToken
    base_url: str
    correlation_id: str | None
    source: Source = "exchange"


class InlineSupply:
    """Exchanges the credential's key, once for each token."""

    def __init__(self, secrets: SecretStore, exchange: Exchange, hosts: Hosts, once: Once) -> None:
        self._secrets = secrets
        self._exchange = exchange
        self._hosts = hosts
        self._once = once

    def now(self, base_url: str) -> float:
        """Seconds since the epoch by that host's clock, which is the one that ends a token's life."""
        return self._exchange.now(base_url)

    def one(self, credential: CredentialId, *, deadline: Deadline, correlation_id: str, effort: Effort) -> Supplied:
        """One fresh token. Raises the errors of the key, the host and the exchange."""

        def reread(refused: ApiKey) -> tuple[ApiKey, str]:
            fresh = self._secrets.reread(credential, refused, deadline=deadline, on_read=effort.count_secret_read)
            return fresh, self._hosts.base_url(credential, fresh.base_url)

        api_key, base_url = self._key(credential, deadline, effort)
        exchanged = self._exchange.access_token(
            api_key,
            base_url,
            deadline=deadline,
            reread=reread,
            correlation_id=correlation_id,
            on_attempt=effort.attempts.append,
        )
        if not self._once.first_time(exchanged.token.fingerprint):
            raise UpstreamProtocol("Imburse gave out a token that it gave out before")
        return Supplied(exchanged.token, exchanged.base_url, exchanged.correlation_id)

    def many(
        self, credential: CredentialId, count: int, *, deadline: Deadline, correlation_id: str, effort: Effort
    ) -> Iterator[Supplied | VendingError]:
        """As many outcomes as asked for, each as it comes: a token, or the error that stands in its place.

        Raises the errors of the key and the host, which would be the same for all.
        """
        from concurrent.futures import ThreadPoolExecutor, as_completed

        self._key(credential, deadline, effort)
        throttled: list[UpstreamThrottled] = []

        def one() -> Supplied:
            if throttled:  # the rest of the batch would only be throttled too, and keep Imburse throttling
                raise throttled[0]
            try:
                return self.one(credential, deadline=deadline, correlation_id=correlation_id, effort=effort)
            except UpstreamThrottled as exc:
                throttled.append(exc)
                raise

        with ThreadPoolExecutor(min(count, MAX_CONNECTIONS), "exchange") as pool:
            for future in as_completed([pool.submit(one) for _ in range(count)]):
                try:
                    yield future.result()
                except VendingError as exc:
                    yield exc

    def _key(self, credential: CredentialId, deadline: Deadline, effort: Effort) -> tuple[ApiKey, str]:
        api_key = self._secrets.get(credential, deadline=deadline, on_read=effort.count_secret_read)
        return api_key, self._hosts.base_url(credential, api_key.base_url)


def most_common(failures: list[VendingError]) -> VendingError:
    """The failure that stands for all when no token came at all."""
    code, _ = Counter(failure.code for failure in failures).most_common(1)[0]
    return next(failure for failure in failures if failure.code == code)
