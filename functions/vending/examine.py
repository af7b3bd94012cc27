"""One credential, examined as its callers meet it: the secret read afresh, a real exchange, and what its token reaches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from imburse_auth.credential import CredentialId
from imburse_auth.errors import (
    CredentialMisconfigured,
    UpstreamAnswer,
    UpstreamRejected,
    UpstreamUnavailable,
    VendingError,
)
from imburse_auth.exchange import MAX_CLOCK_SKEW_SECONDS, Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.identity import Identity, identity_me
from imburse_auth.retry import LEAST_ATTEMPT_SECONDS, Deadline
from imburse_auth.secrets import SecretStore
from imburse_auth.transport import Answer, Transport, Unauthorized
from vending.causes import Step, cause_of, well
from vending.supply.inline import Effort, InlineSupply, Supplied
from vending.supply.once import Once

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_secretsmanager.type_defs import GetSecretValueResponseTypeDef

SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Finding:
    """How a credential is, and why.

    `cause` is for people, `code` that of the error table (None unless unhealthy). `clock_skew_seconds` is how far Imburse's
    clock is ahead of ours (negative: behind), 0 if its Date proves no difference. What was never known is None.
    """

    state: Literal["healthy", "unhealthy", "not asked"]
    cause: str
    code: str | None = None
    step: Step | None = None
    reason: str | None = None
    upstream: UpstreamAnswer | None = None
    latency_seconds: float | None = None
    exchange_seconds: tuple[float, ...] = ()
    key_age_days: float | None = None
    clock_skew_seconds: float | None = None


class Examiner:
    """Examines credentials, any number at a time. Nothing is kept between two but connections and tokens' fingerprints."""

    def __init__(
        self,
        *,
        secrets_manager: SecretsManagerClient,
        transport: Transport,
        hosts: Hosts,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._secrets_manager = secrets_manager
        self._transport = transport
        self._hosts = hosts
        self._once = Once()
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    def examine(self, credential: CredentialId, *, deadline: Deadline, correlation_id: str) -> Finding:
        """Read, exchange, ask who the token is, which spends it. Raises nothing of the error table: that is a finding."""
        reader = _DatedReader(self._secrets_manager)
        # All made anew: neither a key from memory nor a refusal of a moment ago must stand in for today's answer.
        secrets = SecretStore(reader, monotonic=self._monotonic)  # type: ignore[arg-type]  # reads is all it does
        transport = _DatedTransport(self._transport, self._clock)
        exchange = Exchange(transport, clock=self._clock, monotonic=self._monotonic, sleep=self._sleep)
        supply = InlineSupply(secrets, exchange, self._hosts, self._once)
        effort = Effort()
        step: Step = "secret"
        base_url: str | None = None
        began: float | None = None
        error: VendingError | None = None
        try:
            api_key = secrets.get(credential, deadline=deadline)
            base_url = self._hosts.base_url(credential, api_key.base_url)
            began = self._monotonic()
            for last_try in (False, True):
                step = "exchange"
                supplied = supply.one(credential, deadline=deadline, correlation_id=correlation_id, effort=effort)
                step = "identity"
                try:
                    found = _ask(transport, supplied, deadline, correlation_id)
                except UpstreamUnavailable:
                    # A token is spent by the call it was made for, so a second try needs a second token.
                    if last_try or deadline.remaining_seconds() < LEAST_ATTEMPT_SECONDS:
                        raise
                else:
                    _check(found, supplied)
                    break
        except VendingError as exc:
            error = exc
        skew = transport.skew_seconds
        exchanges = tuple(attempt.seconds for attempt in effort.attempts)
        latency = None if began is None else self._monotonic() - began
        age = self._age_days(secrets, reader, credential, deadline) if base_url is not None else None
        if error is None:
            return Finding("healthy", well(skew), None, None, None, None, latency, exchanges, age, skew)
        offset = 0.0 if base_url is None else exchange.now(base_url) - self._clock()
        clock_explains = step == "exchange" and _clock_explains(error, skew, offset)
        cause = cause_of(error, step, skew_seconds=skew, clock_explains=clock_explains)
        return Finding(
            "unhealthy", cause, error.code, step, error.reason, error.upstream, latency, exchanges, age, skew
        )

    def _age_days(
        self, secrets: SecretStore, reader: _DatedReader, credential: CredentialId, deadline: Deadline
    ) -> float | None:
        try:
            since = secrets.get(credential, deadline=deadline).created_at or reader.created_at
        except VendingError:  # a second read, after a refusal, found it gone
            since = None
        return None if since is None else max(0.0, (self._clock() - since.timestamp()) / SECONDS_A_DAY)


def _ask(transport: Transport, supplied: Supplied, deadline: Deadline, correlation_id: str) -> Identity:
    headers = supplied.token.headers()
    return identity_me(transport, supplied.base_url, headers, deadline=deadline, correlation_id=correlation_id)


def _check(found: Identity, supplied: Supplied) -> None:
    """Raise CredentialMisconfigured unless what the token reaches is what its secret says."""
    reached = set(_ids([found.accounts, found.tenants]))
    for field, value in (("accountId", supplied.token.account_id), ("tenantId", supplied.token.tenant_id)):
        if value is not None and value.casefold() not in reached:
            raise CredentialMisconfigured(f"{field}: is not what Imburse says that the key reaches")


def _ids(node: object) -> Iterator[str]:
    """Every text in a list or under a name that ends in "id": the answer's exact shape is not printed in what we have."""
    if isinstance(node, str):
        yield node.casefold()
    elif isinstance(node, list):
        for item in node:
            yield from _ids(item)
    elif isinstance(node, dict):
        for name, item in node.items():
            if isinstance(item, (dict, list)) or name.casefold().endswith("id"):
                yield from _ids(item)


def _clock_explains(error: VendingError, skew: float | None, corrected: float) -> bool:
    refused = isinstance(error, UpstreamRejected) and error.upstream is not None and error.upstream.status == 401
    return refused and skew is not None and abs(skew - corrected) > MAX_CLOCK_SKEW_SECONDS


class _DatedReader:
    """Secrets Manager for a SecretStore, remembering since when the version that was read last is there."""

    def __init__(self, client: SecretsManagerClient) -> None:
        self._client = client
        self.created_at: datetime | None = None

    def get_secret_value(self, **arguments: Any) -> GetSecretValueResponseTypeDef:  # noqa: ANN401 - boto3's own
        answer = self._client.get_secret_value(**arguments)
        self.created_at = answer.get("CreatedDate")
        return answer


class _DatedTransport(Transport):
    """Another transport, noting how far the clock of who answers is from ours."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._clock = clock
        self.skew_seconds: float | None = None

    def send(self, *arguments: Any, **options: Any) -> Answer:  # noqa: ANN401 - handed on as they come
        asked = self._clock()
        try:
            answer = self._transport.send(*arguments, **options)
        except Unauthorized as refusal:
            self._note(asked, refusal.date_seconds)
            raise
        self._note(asked, answer.date_seconds)
        return answer

    def _note(self, asked: float, date: float | None) -> None:
        """What the date proves: it has whole seconds, and was written at some time between the question and now."""
        if date is not None:
            answered = self._clock()
            self.skew_seconds = date - answered if date > answered else min(0.0, date + 1 - asked)
