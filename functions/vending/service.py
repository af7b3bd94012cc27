"""One vend, from question to answer: access decides, supply gives, record writes, and only then does a token leave."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aws_lambda_powertools import Logger

from imburse_auth.aws import Aws
from imburse_auth.errors import VendingError, plain_correlation_id
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.identity import identity_me
from imburse_auth.retry import Deadline, retrying
from imburse_auth.secrets import SecretStore, secrets_client
from imburse_auth.transport import Transport
from vending import answer
from vending.access.brake import Brake
from vending.access.budget import Budgets
from vending.access.caller import Caller, through
from vending.access.policy import Policy
from vending.access.proof import Proof, Prover
from vending.books import Books, waste
from vending.config import Config, required
from vending.errors import InternalError, NotAuthorized
from vending.operate import Operator, Order
from vending.record.audit import AuditRecord, AuditTrail
from vending.record.log import make_logger
from vending.request import Request
from vending.supply.inline import Effort, InlineSupply, Supplied, most_common
from vending.supply.once import Once
from vending.supply.pool import Pool
from vending.supply.shared import Shared
from vending.supply.supply import Supply
from vending.supply.waker import LateLambda, Waker
from vending.table import Table, dynamodb_client

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

ANSWER_SECONDS = 1.0  # kept back from the function's time, to write the record and answer
INSPECT_ATTEMPTS = 2  # each costs a token
MAX_BATCH_CHARACTERS = 4_500_000  # Lambda carries 6 MB; the answer is JSON within JSON at one of the doors


@dataclass(frozen=True)
class Visit:
    """One invocation: which door (and through which alias a direct one came), its ids, and when it must be answered."""

    door: Literal["api", "invoke"]
    request_id: str
    correlation_id: str
    deadline: Deadline
    through: str | None = None

    @classmethod
    def of(
        cls, door: Literal["api", "invoke"], request_id: str, correlation_id: object, context: LambdaContext
    ) -> Visit:
        """The visit behind a Lambda context. A correlation id that is not fit for a log or a header is not taken over."""
        seconds = context.get_remaining_time_in_millis() / 1000 - ANSWER_SECONDS
        ids = request_id, plain_correlation_id(correlation_id) or request_id
        return cls(
            door, *ids, Deadline.after(seconds), through(context.invoked_function_arn) if door == "invoke" else None
        )


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
        table: Table,
        waker: Waker,
        sts_endpoints: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._policy = policy
        self._transport = transport
        self._books = books = Books(service, policy, audit, logger, clock=clock)
        once = Once()
        pool = Pool(table, clock=clock)
        shared = Shared(table, clock=clock, sleep=sleep, on_unavailable=lambda: books.note("PoolUnavailable"))
        self._supply = Supply(
            secrets=secrets,
            hosts=hosts,
            inline=InlineSupply(secrets, Exchange(transport, clock=clock, sleep=sleep), hosts, once),
            once=once,
            pool=pool,
            waker=waker,
            shared=shared,
            clock=clock,
        )
        self._prover = Prover(sts_endpoints or {}, transport, table, clock=clock, sleep=sleep)
        self._brake = Brake(table, clock=clock, on_unavailable=lambda: books.note("BrakeUnavailable"))
        self._budgets = Budgets(
            table,
            clock=clock,
            on_unavailable=lambda: books.note("BudgetUnavailable"),
            on_used=books.note_budget,
        )
        self._operator = Operator(
            policy, self._brake, lambda credential: pool.purge(credential) + shared.purge(credential)
        )
        self._logger = logger
        self._sleep = sleep

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Vending:
        """Read settings and policy, and make the clients, without a call to anybody.

        Raises ValueError, which names the variable or the policy's fault: the function then does not start.
        """
        config, aws = Config.from_env(environ), Aws()
        table = Table(dynamodb_client(aws), required(environ, "VENDING_TABLE"))
        return cls(
            service=config.service,
            policy=Policy.load(config.access_policy),
            secrets=SecretStore(secrets_client(aws)),
            transport=Transport(),
            hosts=config.hosts,
            audit=AuditTrail(),
            logger=make_logger(config.service),
            table=table,
            waker=Waker(table, LateLambda(aws), required(environ, "REFILL_FUNCTION")),
            sts_endpoints=config.sts_endpoints,
        )

    def serve(
        self, visit: Visit, caller_of: Callable[[], Caller | Proof], request_of: Callable[[], Request | Order]
    ) -> dict[str, Any]:
        """Answer one visit. Raises VendingError and nothing else, and leaves an audit record either way.

        Exactly one, but for a thaw that fails: it comes after its record, so a second one tells.
        """
        self._logger.append_keys(requestId=visit.request_id, correlation_id=visit.correlation_id)
        record = AuditRecord(visit.request_id, visit.correlation_id, self._service, visit.door, through=visit.through)
        effort = Effort()
        then: list[Callable[[], None]] = []
        try:
            body = self._answer(visit, caller_of, request_of, record, effort, then)
            self._books.write(record)
            for act in then:
                act()
        except Exception as exc:  # noqa: BLE001 - a bug is answered like any error, and tells the caller nothing
            raise self._books.refuse(record, exc, effort) from None
        self._books.close(record, effort)
        return body

    def _answer(
        self,
        visit: Visit,
        caller_of: Callable[[], Caller | Proof],
        request_of: Callable[[], Request | Order],
        record: AuditRecord,
        effort: Effort,
        then: list[Callable[[], None]],
    ) -> dict[str, Any]:
        who = caller_of()
        self._introduce(who, record)
        request = request_of()
        if isinstance(request, Order):
            record.action, record.brake = "operate", request.as_record()
            record.credential = request.target if request.scope == "credential" else None
        else:
            record.action, record.credential, record.count = request.action, str(request.credential), request.count
        # Only now: neither what is wrong with a proof nor with what is asked costs a call to STS.
        caller = self._prover.caller(who, deadline=visit.deadline) if isinstance(who, Proof) else who
        self._introduce(caller, record)
        if isinstance(request, Order):
            return self._operate(caller, request, record, then, who)
        decision = self._policy.decide(caller, request.action, request.credential, request.count)
        record.policies = decision.policy_ids
        if not decision.allowed:
            raise NotAuthorized("the policy does not allow it")
        self._brake.check(caller, request.credential)
        if isinstance(who, Proof) and request.batch:
            self._prover.spend(who)
        record.decision = "allow"
        self._budgets.spend(caller, request.credential, decision, request.count)
        if request.action == "inspect":
            body = self._inspect(visit, request, record, effort)
        elif request.batch:
            body = self._batch(visit, request, record, effort)
        else:
            body = self._single(request, self._one(visit, request, effort), record)
        self._brake.check(caller, request.credential)  # who waited for Imburse must not leave long after a freeze
        return body

    def _introduce(self, who: Caller | Proof, record: AuditRecord) -> None:
        if isinstance(who, Proof):
            record.proof = who.fingerprint
            return
        record.caller, record.source_ip, record.vpce = who.id, who.source_ip, who.vpce
        record.via = who.via if who.via != record.door else None
        record.through = record.through if record.through != who.id else None

    def _operate(
        self,
        caller: Caller,
        order: Order,
        record: AuditRecord,
        then: list[Callable[[], None]],
        who: Caller | Proof,
    ) -> dict[str, Any]:
        decision = self._operator.decide(caller, order)
        record.policies = decision.policy_ids
        if not decision.allowed:
            raise NotAuthorized("the policy does not allow it")
        if isinstance(who, Proof):
            self._prover.spend(who)
        record.decision = "allow"
        obeyed = self._operator.obey(caller, order)
        then.append(obeyed.then)
        return obeyed.body

    def _one(self, visit: Visit, request: Request, effort: Effort) -> Supplied:
        return self._supply.one(
            request.credential,
            least_seconds=request.least_seconds,
            deadline=visit.deadline,
            correlation_id=visit.correlation_id,
            effort=effort,
        )

    def _single(self, request: Request, supplied: Supplied, record: AuditRecord) -> dict[str, Any]:
        entry = {
            "sha256": supplied.token.fingerprint,
            "expires": supplied.token.expires,
            "source": supplied.source,
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
            least_seconds=request.least_seconds,
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
                waste([record.tokens.pop()], effort)
                failures.append(InternalError("the answer would be larger than Lambda can carry; ask for fewer"))
                continue
            tokens.append(token)
        if not tokens:
            raise most_common(failures)
        record.failures = dict(Counter(failure.code for failure in failures))
        return answer.batch(tokens, request.count, failures)

    def _inspect(self, visit: Visit, request: Request, record: AuditRecord, effort: Effort) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            supplied = self._supply.fresh(
                request.credential, deadline=visit.deadline, correlation_id=visit.correlation_id, effort=effort
            )
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
