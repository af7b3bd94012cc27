"""Tokens in this process, with a key: for the functions themselves, and for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from imburse_auth.api_key import ApiKey
from imburse_auth.client.failed import VendingFailed
from imburse_auth.client.patience import PATIENCE_SECONDS, PerProcess
from imburse_auth.client.vended import Vended
from imburse_auth.errors import VendingError
from imburse_auth.hosts import normalise_base_url
from imburse_auth.retry import Deadline

if TYPE_CHECKING:
    from imburse_auth.exchange import Exchange
    from imburse_auth.transport import Transport


class KeySource:
    """Exchanges `api_key` at `base_url`, once for each token.

    No policy decides here and no audit record is written: whoever holds the key answers for its use.
    """

    def __init__(
        self,
        api_key: ApiKey,
        base_url: str,
        *,
        transport: Transport | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api_key = api_key
        self._base_url = normalise_base_url(base_url)
        self._patience_seconds = patience_seconds
        self._exchange: PerProcess[Exchange] = PerProcess(lambda: _exchange(transport, clock))

    def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:  # noqa: ARG002 - they are new
        """At least one token, at most `count`; a failure after the first ends the batch. Raises VendingFailed."""
        tokens: list[Vended] = []
        deadline = Deadline.after(self._patience_seconds)
        exchange = self._exchange.get()
        for _ in range(count):
            try:
                token = exchange.access_token(self._api_key, self._base_url, deadline=deadline).token
            except VendingError as error:
                if tokens:
                    break
                raise VendingFailed.from_error(error) from None
            left = token.expires_in(exchange.now(self._base_url))
            tokens.append(Vended(str(credential), token.expires, self._base_url, token.headers(), token.value, left))
        return tokens


def _exchange(transport: Transport | None, clock: Callable[[], float]) -> Exchange:
    from imburse_auth.exchange import Exchange
    from imburse_auth.transport import Transport

    return Exchange(transport or Transport(), clock=clock)
