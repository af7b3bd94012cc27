"""Who is calling, proven: the caller signed a request to AWS STS for us, we send it, and STS says who that was.

What is sent is built here, of nothing but who signed, when, and the signature (`imburse_auth.caller_proof`): STS refuses it
unless the caller signed this very request, our function's ARN in it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imburse_auth.caller_proof import BODY, DATE_FORMAT, authorization, request_headers
from imburse_auth.errors import UpstreamProtocol, UpstreamRejected, UpstreamThrottled, VendingError
from imburse_auth.retry import Deadline, retrying
from imburse_auth.transport import Transport
from vending.access import caller
from vending.access.caller import Caller
from vending.errors import InvalidRequest, NotAuthorized, ProofUnavailable
from vending.table import Table, TableUnavailable

WINDOW_SECONDS = 300  # from our clock, to either side; STS itself takes 15 minutes
ATTEMPTS = 2
ATTEMPT_SECONDS = 2.0
PATIENCE_SECONDS = 5.0
KEPT_SECONDS = 900  # how long a spent proof is remembered, from when it was signed: by then no clock of ours takes it

# Text that fits a header and cannot end one, nor add a part to the Authorization header or its scope.
_RULES = {
    "region": (re.compile(r"[a-z0-9-]{1,32}"), "1 to 32 lower-case letters, digits or '-'"),
    "accessKeyId": (re.compile(r"[A-Za-z0-9_.-]{1,128}"), "1 to 128 letters, digits, '_', '.' or '-'"),
    "date": (re.compile(r"[0-9]{8}T[0-9]{6}Z"), "of the form 20260131T120000Z"),
    "nonce": (re.compile(r"[A-Za-z0-9_-]{16,64}"), "16 to 64 letters, digits, '_' or '-'"),
    "signature": (re.compile(r"[0-9a-f]{64}"), "64 hexadecimal digits in lower case"),
    "sessionToken": (re.compile(r"[!-~]{1,8192}"), "1 to 8192 printable ASCII characters, no space"),
}
_OPTIONAL = {"sessionToken"}
_THROTTLED = {"Throttling", "ThrottlingException", "RequestThrottled", "RequestLimitExceeded"}  # STS says so with a 400


@dataclass(frozen=True)
class Proof:
    """What somebody who came through an alias says of who they are, not checked yet. `audience` is our ARN, not their word."""

    audience: str
    region: str
    date: str
    access_key_id: str = field(repr=False)
    nonce: str = field(repr=False)
    signature: str = field(repr=False)
    session_token: str | None = field(repr=False)

    @classmethod
    def read(cls, value: object, audience: str) -> Proof:
        """Read `{"region", "accessKeyId", "date", "nonce", "signature", "sessionToken"?}`. Raises InvalidRequest."""
        if not isinstance(value, dict) or not _RULES.keys() - _OPTIONAL <= value.keys() <= _RULES.keys():
            raise InvalidRequest(f"proof: must be an object with {', '.join(_RULES)} (the last for a role) and no more")
        for name, text in value.items():
            pattern, rule = _RULES[name]
            if not isinstance(text, str) or not pattern.fullmatch(text):
                raise InvalidRequest(f"proof.{name}: must be {rule}")
        return cls(
            audience=audience,
            region=value["region"],
            date=value["date"],
            access_key_id=value["accessKeyId"],
            nonce=value["nonce"],
            signature=value["signature"],
            session_token=value.get("sessionToken"),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the signature, in hexadecimal: names the proof in the audit record and the table."""
        return hashlib.sha256(self.signature.encode()).hexdigest()

    @property
    def signed_at(self) -> float | None:
        """When it was signed, in seconds since the epoch; None if that is no time."""
        try:
            return datetime.strptime(self.date, DATE_FORMAT).replace(tzinfo=UTC).timestamp()
        except (ValueError, OverflowError):
            return None

    def headers(self) -> dict[str, str]:
        """The headers of the request that was signed."""
        headers = request_headers(self.audience, date=self.date, nonce=self.nonce, session_token=self.session_token)
        headers["Authorization"] = authorization(
            headers, access_key_id=self.access_key_id, region=self.region, signature=self.signature
        )
        return headers


def from_invoke(event: object, invoked_function_arn: str) -> Caller | Proof:
    """The proof in the event, to be checked by `Prover.caller`; without one, the alias.

    Whoever offers a proof is never taken for the alias. Raises NotAuthorized for a version or no alias, with a proof too, and
    InvalidRequest for a proof that is not one.
    """
    alias = caller.from_invoke(invoked_function_arn)
    if not isinstance(event, dict) or "proof" not in event:
        return alias
    return Proof.read(event["proof"], caller.unqualified(invoked_function_arn))


class Prover:
    """Has proofs checked by STS. One object serves all threads; nothing of a proof is kept in memory.

    `endpoints` maps a region to its STS endpoint's base URL: no other host is ever sent a proof.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        transport: Transport,
        table: Table,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoints = dict(endpoints)
        self._transport = transport
        self._table = table
        self._clock = clock
        self._sleep = sleep

    def caller(self, proof: Proof, *, deadline: Deadline) -> Caller:
        """Who signed it, as the API would name them. Asks STS, twice at most, and only what is fresh and for a listed region.

        Raises NotAuthorized, and ProofUnavailable if STS cannot say.
        """
        endpoint = self._endpoints.get(proof.region)
        if endpoint is None:
            raise NotAuthorized("proof: there is no STS endpoint for its region on the list")
        signed_at = proof.signed_at
        if signed_at is None or abs(self._clock() - signed_at) > WINDOW_SECONDS:
            raise NotAuthorized("proof: was not signed within the last five minutes")
        arn, account = _identity(self._ask(endpoint, proof, deadline))
        try:
            proven = caller.from_sts(arn)
        except ValueError as exc:
            raise NotAuthorized(f"proof: {exc}") from None
        if proven.account != account:
            raise _unusable("the account is not the ARN's")
        return proven

    def spend(self, proof: Proof) -> None:
        """Let a proof pass once, over all execution environments.

        Raises NotAuthorized the second time. Raises ProofUnavailable if the table cannot be reached, where budget and brake
        would let it pass: this is what protects from a replay, and one more proof costs the caller nothing.
        """
        ttl = int(proof.signed_at or 0) + KEPT_SECONDS
        try:
            first = self._table.put_new({"pk": "proof", "sk": proof.fingerprint, "ttl": ttl})
        except TableUnavailable as exc:
            raise ProofUnavailable(
                "it cannot be seen whether the proof was used before; try again with another", reason=str(exc)
            ) from exc
        if not first:
            raise NotAuthorized("proof: was used before")

    def _ask(self, endpoint: str, proof: Proof, deadline: Deadline) -> object:
        bound = Deadline.after(min(PATIENCE_SECONDS, deadline.remaining_seconds()), deadline.clock)

        def ask() -> object:
            attempt = Deadline.after(min(ATTEMPT_SECONDS, bound.remaining_seconds()), bound.clock)
            try:
                return self._transport.send(
                    "POST", f"{endpoint}/", proof.headers(), deadline=attempt, body=BODY
                ).payload
            except UpstreamRejected as exc:
                if exc.upstream is not None and exc.upstream.error_code in _THROTTLED:
                    raise UpstreamThrottled(exc.detail, upstream=exc.upstream) from None
                raise

        try:
            return retrying(bound, attempts=ATTEMPTS, sleep=self._sleep)(ask)
        except UpstreamRejected as exc:
            status, code = (exc.upstream.status, exc.upstream.error_code) if exc.upstream else (0, None)
            if status in (400, 401, 403):
                raise NotAuthorized(f"proof: STS does not accept it: {code or status}") from None
            raise _unusable(f"status {status}") from None
        except UpstreamProtocol as exc:
            raise _unusable(exc.reason or exc.code) from None
        except VendingError as exc:
            raise ProofUnavailable(
                "AWS STS does not answer, so the proof could not be checked",
                reason=exc.reason or exc.code,
                retry_after_seconds=exc.retry_after_seconds,
            ) from None


def _identity(payload: Any) -> tuple[str, str]:  # noqa: ANN401 - whatever JSON it answered
    """The ARN and the account in STS's answer, `{"GetCallerIdentityResponse": {"GetCallerIdentityResult": {...}}}`."""
    try:
        result = payload["GetCallerIdentityResponse"]["GetCallerIdentityResult"]
        arn, account = result["Arn"], result["Account"]
    except (KeyError, TypeError, IndexError):
        raise _unusable("no GetCallerIdentityResult") from None
    if not isinstance(arn, str) or not isinstance(account, str):
        raise _unusable("no text for Arn and Account")
    return arn, account


def _unusable(reason: str) -> ProofUnavailable:
    return ProofUnavailable(
        "AWS STS gave an answer that cannot be used, so the proof could not be checked", reason=reason
    )
