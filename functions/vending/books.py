"""What a visit leaves behind: the audit record first, then a log line and the metrics, which nobody's answer depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger

from imburse_auth.errors import VendingError
from vending.access.policy import Policy
from vending.errors import InternalError, NotAuthorized, OverBudget, ProofUnavailable
from vending.record.audit import AuditRecord, AuditTrail
from vending.record.log import where
from vending.record.metrics import VendingMetrics
from vending.supply.inline import Effort

OUTCOMES = {"vend": "vended", "inspect": "inspected", "operate": "operated"}


class Books:
    """Keeps them for one machine, whose visits come one after the other.

    `policy` tells the credentials that rules name from those that a stranger came up with.
    """

    def __init__(
        self,
        service: str,
        policy: Policy,
        audit: AuditTrail,
        logger: Logger,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._audit = audit
        self._metrics = VendingMetrics(service)
        self._logger = logger
        self._clock = clock
        self._notes: list[str] = []
        self._budget_used_percent: float | None = None

    def note(self, name: str) -> None:
        """Count this with the visit that is going on (vending.record.metrics.NOTES)."""
        self._notes.append(name)

    def note_budget(self, used_percent: float) -> None:
        """How full the fullest budget of the visit is, 0 to 100."""
        self._budget_used_percent = used_percent

    def write(self, record: AuditRecord) -> None:
        """The record of a visit that is answered with what it asked for. Raises AuditUnavailable: nothing may leave then."""
        record.outcome = OUTCOMES[record.action or ""]
        self._audit.write(record, now=self._clock())

    def close(self, record: AuditRecord, effort: Effort) -> None:
        """The figures of a visit whose record is written."""
        self._count(record, effort, vended=len(record.tokens) if record.action == "vend" else 0, failed=record.failures)

    def refuse(self, record: AuditRecord, exc: Exception, effort: Effort) -> VendingError:
        """Record, log and count a visit that ends in an error. Answers what the caller is told: of a bug, only that."""
        error = exc if isinstance(exc, VendingError) else self._bug(exc)
        if isinstance(error, NotAuthorized):
            record.decision = "deny"  # also when the brake was pulled after the policy had allowed it
        undecided = isinstance(error, ProofUnavailable)  # nobody said no
        refused = (record.decision == "deny" and not undecided) or isinstance(error, OverBudget)
        record.outcome = "refused" if refused else "failed"
        record.error = error.code
        record.upstream = error.upstream.as_dict() if error.upstream else None
        if record.action == "vend":
            waste(record.tokens, effort)
            record.tokens = []  # whatever was got is not handed out
        self._logger.warning("refused", code=error.code, detail=error.detail, reason=error.reason)
        try:
            self._audit.write(record, now=self._clock())
        except VendingError as unwritten:
            self._logger.error("no audit record", reason=unwritten.reason)  # noqa: TRY400 - a traceback holds values
        self._count(record, effort, vended=0, failed={error.code: record.count or 1})
        self._measure(lambda: self._metrics.refused(self._dimension(record), error.code))
        return error

    def _bug(self, exc: Exception) -> InternalError:
        self._logger.error("unexpected error", error_type=type(exc).__name__, where=where(exc))
        return InternalError("something is wrong on our side; the request id finds it in the log")

    def _count(self, record: AuditRecord, effort: Effort, *, vended: int, failed: Mapping[str, int]) -> None:
        credential = self._dimension(record)
        notes, self._notes = [*self._notes, *effort.notes], []
        used_percent, self._budget_used_percent = self._budget_used_percent, None
        latencies_seconds = [attempt.seconds for attempt in effort.attempts]
        for trouble in effort.troubles:
            self._logger.warning("pool unavailable", credential=credential, reason=trouble)
        self._measure(
            lambda: self._metrics.visit(
                credential,
                vended,
                latencies_seconds,
                secret_reads=len(effort.secret_reads),
                notes=notes,
                budget_used_percent=used_percent,
            )
        )
        if record.decision == "allow" and record.outcome != "refused":  # a budget that is spent is no failure of ours
            self._measure(lambda: self._metrics.failed(credential, failed))

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


def waste(tokens: list[dict[str, Any]], effort: Effort) -> None:
    """Count those of a record's tokens that came from a pool and go to nobody."""
    effort.note("TokensWasted", sum(token["source"] == "pool" for token in tokens))
