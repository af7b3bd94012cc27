"""The rotate function: one step for Secrets Manager, or each hour the sweep that deletes what was replaced."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from imburse_auth.aws import Aws
from imburse_auth.errors import VendingError
from imburse_auth.exchange import Exchange
from imburse_auth.retry import Deadline
from imburse_auth.secrets import secrets_client
from imburse_auth.transport import Transport
from vending.config import hosts_from_env, required
from vending.listing import credentials
from vending.record.audit import AuditTrail
from vending.record.log import make_logger, where
from vending.record.metrics import VendingMetrics
from vending.rotation.diary import Diary
from vending.rotation.event import Asked, read
from vending.rotation.lease import Leases, RotationFailed
from vending.rotation.notes import Intent, Notes, Retired
from vending.rotation.steps import Steps
from vending.rotation.sweep import Sweep, keys_in_use
from vending.rotation.vendor import Vendor
from vending.supply.pool import Pool
from vending.supply.shared import Shared
from vending.table import Table, TableUnavailable, dynamodb_client

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

SPARE_SECONDS = 5.0  # kept back from the function's time, to give leases back and write down what was done
LONGEST_DELETION_SECONDS = 20.0  # with less left none is begun: the next hour's run does it


class SweepIncomplete(Exception):
    """Something was not deleted or cleaned up; the message is the sweep's answer as JSON. It is what raises the alarm."""


class Rotating:
    """Takes the events of the rotate function, and tells the log and the metrics what came of each."""

    def __init__(
        self,
        *,
        steps: Steps,
        sweep: Sweep,
        delete_rotated_keys: bool,
        audit: AuditTrail,
        metrics: VendingMetrics,
        logger: Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._steps = steps
        self._sweep = sweep
        self._delete_rotated_keys = delete_rotated_keys
        self._audit = audit
        self._metrics = metrics
        self._logger = logger
        self._clock = clock

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Rotating:
        """Read settings and make clients, without a call to anybody. Raises ValueError, which names the variable."""
        service = required(environ, "POWERTOOLS_SERVICE_NAME")
        grace_seconds = required(environ, "ROTATION_GRACE_SECONDS")
        delete = required(environ, "DELETE_ROTATED_KEYS")
        if not (grace_seconds.isascii() and grace_seconds.isdigit()):
            raise ValueError("ROTATION_GRACE_SECONDS: must be a whole number")
        if delete not in ("true", "false"):
            raise ValueError("DELETE_ROTATED_KEYS: must be true or false")
        hosts, transport, aws = hosts_from_env(environ), Transport(), Aws()
        # Nobody waits for a rotation, so it need not give up on a table that is slow.
        table = Table(dynamodb_client(aws, patience_seconds=2.0, tries=2), required(environ, "VENDING_TABLE"))
        secrets_manager = secrets_client(aws)
        return cls.assembled(
            secrets_manager,
            Vendor(secrets_manager, transport, Exchange(transport), hosts),
            table,
            grace_seconds=int(grace_seconds),
            delete_rotated_keys=delete == "true",
            audit=AuditTrail(),
            metrics=VendingMetrics(service),
            logger=make_logger(service),
        )

    @classmethod
    def assembled(
        cls,
        secrets_manager: SecretsManagerClient,
        vendor: Vendor,
        table: Table,
        *,
        grace_seconds: int,
        delete_rotated_keys: bool,
        audit: AuditTrail,
        metrics: VendingMetrics,
        logger: Logger,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Rotating:
        """The function with its parts put together."""
        notes, leases = Notes(table), Leases(table, clock=clock, sleep=sleep)

        def listed() -> list[Any]:
            return list(credentials(secrets_manager, logger))

        steps = Steps(
            secrets_manager,
            vendor,
            notes,
            leases,
            keys_in_use=lambda prolong: keys_in_use(secrets_manager, listed(), before_each=prolong),
            clock=clock,
            sleep=sleep,
        )
        sweep = Sweep(
            secrets_manager,
            listed,
            vendor,
            notes,
            leases,
            steps,
            Pool(table, clock=clock, patience_seconds=SPARE_SECONDS),
            Shared(table, clock=clock),
            grace_seconds,
            clock=clock,
        )
        return cls(
            steps=steps,
            sweep=sweep,
            delete_rotated_keys=delete_rotated_keys,
            audit=audit,
            metrics=metrics,
            logger=logger,
            clock=clock,
        )

    def run(self, event: object, *, request_id: str, deadline: Deadline) -> dict[str, Any]:
        """Do the step that Secrets Manager asks for, or with `{}` the sweep, and answer what was done.

        Raises ValueError for another event, SweepIncomplete, and what a step raises; Secrets Manager then tries again.
        """
        self._logger.append_keys(requestId=request_id, correlation_id=request_id)
        asked = read(event)
        soon = Deadline.after(max(0.0, deadline.remaining_seconds() - SPARE_SECONDS), deadline.clock)
        door = "schedule" if asked is None else "secretsmanager"
        diary = Diary(self._audit, request_id, door, self._clock)
        return self._swept(diary, soon) if asked is None else self._stepped(asked, diary, soon)

    def _stepped(self, asked: Asked, diary: Diary, deadline: Deadline) -> dict[str, Any]:
        try:
            done = self._step(asked, diary, deadline)
        except Exception as exc:
            self._logger.error("rotation step failed", step=asked.step, credential=str(asked.credential), **_told(exc))  # noqa: TRY400 - no traceback
            raise
        answer: dict[str, Any] = {"credential": str(asked.credential), "step": asked.step, "done": done}
        self._logger.info("rotation step", **answer)
        return answer

    def _step(self, asked: Asked, diary: Diary, deadline: Deadline) -> str:
        if asked.step == "createSecret":
            return self._steps.create(asked.credential, asked.token, diary=diary, deadline=deadline)
        if asked.step == "testSecret":
            return self._steps.test(asked.credential, asked.token, deadline=deadline, correlation_id=diary.request_id)
        if asked.step == "finishSecret":
            return self._steps.finish(asked.credential, asked.token, diary=diary, deadline=deadline)
        return "there is nothing to set: Imburse knows its key already"

    def _swept(self, diary: Diary, deadline: Deadline) -> dict[str, Any]:
        failed: dict[str, str] = {}
        deleted = [f"{retired.credential} {retired.public_key}" for retired in self._deleted(diary, deadline, failed)]
        for intent in self._sweep.given_up():
            with _Noting(self, failed, intent):
                self._sweep.tidy(intent, diary=diary, deadline=deadline)
        waiting = len(self._sweep.waiting())
        self._metrics.rotation(waiting=waiting, deleted=len(deleted))
        answer: dict[str, Any] = {"deleted": deleted, "waiting": waiting, "deleting": self._delete_rotated_keys}
        self._logger.info("sweep", **answer)
        if failed:
            raise SweepIncomplete(json.dumps(answer | {"failed": failed}))
        return answer

    def _deleted(self, diary: Diary, deadline: Deadline, failed: dict[str, str]) -> list[Retired]:
        due = [retired for retired in self._sweep.waiting() if self._sweep.due(retired)]
        if not due or not self._delete_rotated_keys:
            return []
        deleted: list[Retired] = []
        try:
            in_use = self._sweep.in_use()
        except RotationFailed as exc:
            failed["all"] = str(exc)
            return []
        for retired in due:
            with _Noting(self, failed, retired):
                if deadline.remaining_seconds() < LONGEST_DELETION_SECONDS:
                    raise RotationFailed("there was no time left for it; the next run goes on")
                if self._sweep.delete(retired, in_use, diary=diary, deadline=deadline):
                    deleted.append(retired)
        return deleted


class _Noting:
    """Around the work for one credential: its trouble is noted and must not keep the others from theirs."""

    def __init__(self, rotating: Rotating, failed: dict[str, str], work: Retired | Intent) -> None:
        self._rotating = rotating
        self._failed = failed
        self._work = work

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> bool:
        if not isinstance(exc, Exception):
            return False
        credential, told = str(self._work.credential), _told(exc)
        self._failed[credential] = str(told["code"])
        what = "retired key not deleted" if isinstance(self._work, Retired) else "rotation not cleaned up"
        self._rotating._logger.error(what, credential=credential, **told)  # noqa: SLF001 - it is a part of it
        return True


def _told(exc: Exception) -> dict[str, Any]:
    """What the log says of an error: a code and our own words, and of a stranger's its class and where it came from."""
    if isinstance(exc, VendingError):
        told = {"code": exc.code, "detail": exc.detail, "reason": exc.reason}
        return told | ({"upstream": exc.upstream.as_dict()} if exc.upstream else {})
    if isinstance(exc, RotationFailed):
        return {"code": "rotation_failed", "detail": str(exc)}
    if isinstance(exc, TableUnavailable):
        return {"code": "table_unavailable", "detail": str(exc)}
    return {"code": type(exc).__name__, "where": where(exc)}
