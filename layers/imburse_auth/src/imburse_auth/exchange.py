"""The exchange: `POST /v1/identity/hmac`, an HMAC token for an access token (protocol.md, section 3)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.errors import UpstreamRejected, VendingError
from imburse_auth.hmac_token import sign
from imburse_auth.retry import Deadline, retrying
from imburse_auth.transport import Transport, Unauthorized

EXCHANGE_PATH = "/v1/identity/hmac"
MAX_CLOCK_SKEW_SECONDS = 60
MAX_CLOCK_CORRECTION_SECONDS = 86_400  # no clock that is kept at all is further off; a date beyond is a slip or a trick
REFUSED_KEY_SECONDS = 30
REREAD_SECONDS = 5  # while a key is refused: how often it is looked up whether another has taken its place


@dataclass(frozen=True)
class Attempt:
    """One try, for the metrics: seconds it took and the code of the error that ended it, None for a token."""

    seconds: float
    error_code: str | None


@dataclass(frozen=True)
class Exchanged:
    """A token, the host that gave it, and the correlation id under which it did."""

    token: AccessToken
    base_url: str
    correlation_id: str | None


class Exchange:
    """Exchanges keys for access tokens; one object serves all threads.

    It keeps two things between calls: how far our clock is from each host's, and which keys were refused in the last 30 s.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._offset_seconds: dict[str, float] = {}
        self._refused_until: dict[tuple[str, ApiKey], tuple[float, UpstreamRejected]] = {}
        self._reread_at: dict[tuple[str, ApiKey], float] = {}

    def now(self, base_url: str) -> float:
        """Seconds since the epoch by the clock of that host, as far as it has corrected ours."""
        return self._clock() + self._offset_seconds.get(base_url, 0.0)

    def access_token(
        self,
        api_key: ApiKey,
        base_url: str,
        *,
        deadline: Deadline,
        reread: Callable[[ApiKey], tuple[ApiKey, str]] | None = None,
        correlation_id: str | None = None,
        on_attempt: Callable[[Attempt], None] = lambda _: None,
    ) -> Exchanged:
        """Exchange the key for a fresh token, with every attempt signed anew.

        `reread` fetches the key again past every cache, and the base URL that goes with it, given the key that was refused;
        it is called once after a 401 that the clocks do not explain, and each 5 s while the key is known to be refused.
        Raises UpstreamRejected, UpstreamProtocol, UpstreamThrottled or UpstreamUnavailable, and what `reread` raises.
        """
        api_key, base_url = self._not_refused(api_key, base_url, reread)
        clock_corrected = key_reread = False
        while True:
            try:
                return self._with_retries(api_key, base_url, deadline, correlation_id, on_attempt)
            except Unauthorized as refusal:
                if self._correct_clock(base_url, refusal):
                    if not clock_corrected:
                        clock_corrected = True
                        continue
                    # A clock that changed twice within one exchange says nothing about the key.
                    raise UpstreamRejected(refusal.detail, upstream=refusal.upstream) from None
                self._refuse_if_refused(base_url, api_key)  # another thread has read it afresh in the meantime
                if not key_reread and reread is not None:
                    key_reread = True
                    fresh = reread(api_key)
                    if fresh != (api_key, base_url):
                        api_key, base_url = fresh
                        self._refuse_if_refused(base_url, api_key)
                        continue
                raise self._remember_refusal(base_url, api_key, refusal) from None

    def _with_retries(
        self,
        api_key: ApiKey,
        base_url: str,
        deadline: Deadline,
        correlation_id: str | None,
        on_attempt: Callable[[Attempt], None],
    ) -> Exchanged:
        def attempt() -> Exchanged:
            started = self._monotonic()
            code: str | None = None
            try:
                return self._once(api_key, base_url, deadline, correlation_id)
            except VendingError as exc:
                code = exc.code
                raise
            finally:
                on_attempt(Attempt(self._monotonic() - started, code))

        return retrying(deadline, sleep=self._sleep)(attempt)

    def _once(self, api_key: ApiKey, base_url: str, deadline: Deadline, correlation_id: str | None) -> Exchanged:
        hmac_token = sign(api_key, timestamp=int(self.now(base_url)))
        try:
            answer = self._transport.send(
                "POST",
                base_url + EXCHANGE_PATH,
                {"Authorization": hmac_token.authorization},
                deadline=deadline,
                correlation_id=correlation_id,
            )
        except Unauthorized as refusal:
            refusal.signed_at_seconds = hmac_token.timestamp
            raise
        token = AccessToken.from_answer(answer.payload, api_key, now=self.now(base_url))
        correlation_id = answer.correlation_id
        if correlation_id is not None and (correlation_id in token.value or token.value in correlation_id):
            correlation_id = None  # it goes into the audit record, where no part of a token may stand
        return Exchanged(token, base_url, correlation_id)

    def _correct_clock(self, base_url: str, refusal: Unauthorized) -> bool:
        """True if the host's clock is so far from ours that it explains a 401; ours is then corrected for that host.

        Ours is the time that was signed, not the time by now: another thread may have corrected it in between.
        """
        date, signed_at = refusal.date_seconds, refusal.signed_at_seconds
        if date is None or abs(date - signed_at) <= MAX_CLOCK_SKEW_SECONDS:
            return False
        offset = date - self._clock()
        if abs(offset) > MAX_CLOCK_CORRECTION_SECONDS:
            return False
        self._offset_seconds[base_url] = offset
        return True

    def _not_refused(
        self, api_key: ApiKey, base_url: str, reread: Callable[[ApiKey], tuple[ApiKey, str]] | None
    ) -> tuple[ApiKey, str]:
        """What to exchange: the key, or if that is refused the one in its place by now. Raises UpstreamRejected."""
        try:
            self._refuse_if_refused(base_url, api_key)
        except UpstreamRejected:
            if reread is None or not self._may_reread(base_url, api_key):
                raise
            api_key, base_url = reread(api_key)
            self._refuse_if_refused(base_url, api_key)
        return api_key, base_url

    def _may_reread(self, base_url: str, api_key: ApiKey) -> bool:
        now = self._monotonic()
        with self._lock:  # one thread of all that are refused together
            if now < self._reread_at.get((base_url, api_key), 0.0) + REREAD_SECONDS:
                return False
            self._reread_at[base_url, api_key] = now
            return True

    def _refuse_if_refused(self, base_url: str, api_key: ApiKey) -> None:
        if not self._refused_until:
            return
        until, refusal = self._refused_until.get((base_url, api_key), (0.0, None))
        if refusal is not None and self._monotonic() < until:
            raise UpstreamRejected(refusal.detail, upstream=refusal.upstream)

    def _remember_refusal(self, base_url: str, api_key: ApiKey, refusal: Unauthorized) -> UpstreamRejected:
        # A key that is refused stays refused for a while: asking again at every vend would only get us locked out.
        final = UpstreamRejected(
            "Imburse does not accept the key, also after it was read afresh", upstream=refusal.upstream
        )
        now = self._monotonic()
        with self._lock:
            self._refused_until = {key: entry for key, entry in self._refused_until.items() if entry[0] > now}
            self._refused_until[base_url, api_key] = (now + REFUSED_KEY_SECONDS, final)
            self._reread_at = {key: at for key, at in self._reread_at.items() if key in self._refused_until}
            self._reread_at[base_url, api_key] = now
        return final
