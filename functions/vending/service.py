"""One vend, from question to answer: access decides, supply gives, record writes, and only then does a token leave."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aws_lambda_powertools import Logger

from imburse_auth.errors import VendingError, plain_correlation_id
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.identity import identity_me
from imburse_auth.retry import Deadline, retrying
from imburse_auth.secrets import SecretStore, secrets_client
from imburse_auth.transport import Transport
from vending import answer
from vending.access.caller import Caller
from vending.access.policy import Policy
from vending.config import Config
from vending.errors import InternalError, NotAuthorized
from vending.record.audit import AuditRecord, AuditTrail
from vending.record.log import make_logger, where
from vending.record.metrics import VendingMetrics
from vending.request import Request
from vending.supply.inline import Effort, InlineSupply, Supplied, most_common
from vending.supply.once import Once

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

ANSWER_SECONDS = 1.0  # kept back from the function's time, to write the record and answer
INSPECT_ATTEMPTS = 2  # each costs a token
MAX_BATCH_CHARACTERS = 4_500_000  # Lambda carries 6 MB; the answer is JSON within JSON at one of the doors


@dataclass(frozen=True)
class Visit:
    """One invocation: which door, its ids, and the time by which it must be answered."""

    door: Literal["api", "invoke"]
    request_id: str
    correlation_id: str
    deadline: Deadline

    @classmethod
    def of(
        cls, door: Literal["api", "invoke"], request_id: str, correlation_id: object, context: LambdaContext
    ) -> Visit:
        """The visit behind a Lambda context. A correlation id that is not fit for a log or a header is not taken over."""
        seconds = context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS
        return cls(door, request_id, plain_correlation_id(correlation_id) or request_id, Deadline.after(seconds))


class Vending:
    """The whole machine. Made once an execution environment, with every part given to it."""

    def __init__(
        self,
        *,
        service: str,
        policy: Policy,
        secrets: SecretStore,
        transport: Transport,
        hosts: Hosts,
        audit: AuditTrail,
        logger: Logger,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._policy = policy
        self._transport = transport
        self._supply = InlineSupply(secrets, Exchange(transport, clock=clock, sleep=sleep), hosts, Once())
        self._audit = audit
        self._metrics = VendingMetrics(service)
        self._logger = logger
        self._clock = clock
        self._sleep = sleep

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Vending:
        """Read settings and policy, and make the clients, without a call to anybody.

        Raises ValueError, which names the variable or the policy's fault: the function then does not start.
        """
        config = Config.from_env(environ)
        return cls(
            service=config.service,
            policy=Policy.load(config.access_policy),
            secrets=SecretStore(secrets_client()),
            transport=Transport(),
            hosts=config.hosts,
            audit=AuditTrail(),
            logger=make_logger(config.service),
        )

    def serve(self, visit: Visit, caller_of: Callable[[], Caller], request_of: Callable[[], Request]) -> dict[str, Any]:
        """Answer one visit. Raises VendingError and nothing else, and leaves exactly one audit record either way."""
        self._logger.append_keys(requestId=visit.request_id, correlation_id=visit.correlation_id)
        record = AuditRecord(visit.request_id, visit.correlation_id, self._service, visit.door)
        effort = Effort()
        try:
            body = self._answer(visit, caller_of, request_of, record, effort)
            record.outcome = f"{record.action}ed"
            self._audit.write(record, now=self._clock())
        except Exception as exc:  # noqa: BLE001 - a bug is answered like any error, and tells the caller nothing
            error = exc if isinstance(exc, VendingError) else self._bug(exc)
            self._refuse(record, error, effort)
            raise error from None
        self._count(record, effort, vended=len(record.tokens) if record.action == "vend" else 0, failed=record.failures)
        return body

    def _answer(
        self,
        visit: Visit,
        caller_of: Callable[[], Caller],
        request_of: Callable[[], Request],
        record: AuditRecord,
        effort: Effort,
    ) -> dict[str, Any]:
        caller = caller_of()
        record.caller, record.source_ip, record.vpce = caller.id, caller.source_ip, caller.vpce
        request = request_of()
        record.action, record.credential, record.count = request.action, str(request.credential), request.count
        decision = self._policy.decide(caller, request.action, request.credential, request.count)
        record.policies = decision.policy_ids
        if not decision.allowed:
            raise NotAuthorized("the policy does not allow it")
        record.decision = "allow"
        if request.action == "inspect":
            return self._inspect(visit, request, record, effort)
        if request.batch:
            return self._batch(visit, request, record, effort)
        return self._single(request, self._one(visit, request, effort), record)

    def _one(self, visit: Visit, request: Request, effort: Effort) -> Supplied:
        return self._supply.one(
            request.credential, deadline=visit.deadline, correlation_id=visit.correlation_id, effort=effort
        )

    def _single(self, request: Request, supplied: Supplied, record: AuditRecord) -> dict[str, Any]:
        entry = {
            "sha256": supplied.token.fingerprint,
            "expires": supplied.token.expires,
            "source": "exchange",
            "upstreamCorrelationId": supplied.correlation_id,
        }
        record.tokens.append({name: value for name, value in entry.items() if value is not None})
        return answer.single(request.credential, supplied, now=self._supply.now(supplied.base_url))

    def _batch(self, visit: Visit, request: Request, record: AuditRecord, effort: Effort) -> dict[str, Any]:
        tokens: list[dict[str, Any]] = []
        failures: list[VendingError] = []
        characters = 0
        for outcome in self._supply.many(
            request.credential,
            request.count,
            deadline=visit.deadline,
            correlation_id=visit.correlation_id,
            effort=effort,
        ):
            if isinstance(outcome, VendingError):
                failures.append(outcome)
                continue
            token = self._single(request, outcome, record)
            characters += len(json.dumps(token))
            if characters > MAX_BATCH_CHARACTERS:
                # Dropped here and told so, rather than lost with all the others when Lambda refuses the whole answer.
                record.tokens.pop()
                failures.append(InternalError("the answer would be larger than Lambda can carry; ask for fewer"))
                continue
            tokens.append(token)
        if not tokens:
            raise most_common(failures)
        record.failures = dict(Counter(failure.code for failure in failures))
        return answer.batch(tokens, request.count, failures)

    def _inspect(self, visit: Visit, request: Request, record: AuditRecord, effort: Effort) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            supplied = self._one(visit, request, effort)
            self._single(request, supplied, record)
            found = identity_me(
                self._transport,
                supplied.base_url,
                supplied.token.headers(),
                deadline=visit.deadline,
                correlation_id=visit.correlation_id,
            )
            return answer.identity(request.credential, found)

        # A token is spent by the call it was made for, so a second try needs a second token.
        return retrying(visit.deadline, attempts=INSPECT_ATTEMPTS, sleep=self._sleep)(ask)

    def _bug(self, exc: Exception) -> InternalError:
        self._logger.error("unexpected error", error_type=type(exc).__name__, where=where(exc))
        return InternalError("something is wrong on our side; the request id finds it in the log")

    def _refuse(self, record: AuditRecord, error: VendingError, effort: Effort) -> None:
        record.outcome = "refused" if record.decision == "deny" else "failed"
        record.error = error.code
        record.upstream = error.upstream.as_dict() if error.upstream else None
        if record.action == "vend":
            record.tokens = []  # whatever was exchanged is not handed out
        self._logger.warning("refused", code=error.code, detail=error.detail, reason=error.reason)
        try:
            self._audit.write(record, now=self._clock())
        except VendingError as unwritten:
            self._logger.error("no audit record", reason=unwritten.reason)  # noqa: TRY400 - a traceback holds values
        self._count(record, effort, vended=0, failed={error.code: record.count or 1})
        self._measure(lambda: self._metrics.refused(self._dimension(record), error.code))

    def _count(self, record: AuditRecord, effort: Effort, *, vended: int, failed: Mapping[str, int]) -> None:
        latencies_seconds = [attempt.seconds for attempt in effort.attempts]
        reads = len(effort.secret_reads)
        dimension = self._dimension(record)
        self._measure(lambda: self._metrics.visit(dimension, vended, latencies_seconds, secret_reads=reads))
        if record.decision == "allow":
            self._measure(lambda: self._metrics.failed(dimension, failed))

    def _measure(self, measure: Callable[[], None]) -> None:
        try:
            measure()
        except Exception as exc:  # noqa: BLE001 - the record is written: a lost figure must not lose the answer
            self._logger.error("metrics lost", error_type=type(exc).__name__)  # noqa: TRY400

    def _dimension(self, record: AuditRecord) -> str | None:
        """The credential, unless it is a name that only a stranger came up with."""
        if record.credential is None or record.decision == "allow" or self._policy.names(record.credential):
            return record.credential
        return None
