"""The probe function: whether each credential is well, a stranger refused, and policy and credentials fit each other.

| item | pk | sk | attributes |
|---|---|---|---|
| unhealthy in a row | `probe` | the credential | n: how many probes in a row found it unhealthy; no item while it is well |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from imburse_auth.aws import Aws
from imburse_auth.credential import CredentialId
from imburse_auth.retry import Deadline
from imburse_auth.secrets import LONGEST_READ_SECONDS, secrets_client
from imburse_auth.transport import Transport
from vending.access.rules import RuleBook
from vending.config import Config, required
from vending.examine import Examiner, Finding
from vending.listing import credentials
from vending.record.log import make_logger, where
from vending.record.metrics import VendingMetrics
from vending.stranger import PATIENCE_SECONDS, Stranger, lambda_client
from vending.table import Table, TableUnavailable, dynamodb_client

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

SPARE_SECONDS = PATIENCE_SECONDS + 5.0  # kept back for the stranger, and to tell what was found
LEAST_SECONDS = LONGEST_READ_SECONDS + 3.0  # with less for a credential, its trouble would only be our hurry
MOST_SECONDS = 20.0  # four tries of an exchange that time out: what vending itself would wait for
AT_ONCE = 8
KEPT_SECONDS = 7 * 86_400
NOBODYS = CredentialId(
    "sandbox", "nobody"
)  # what a stranger asks for while there is no credential: refused all the same

# Not `random`: its state is part of a SnapStart snapshot.
_shuffle = SystemRandom().shuffle


class Probing:
    """Examines credentials, and tells the log and the metrics of each."""

    def __init__(
        self,
        *,
        examiner: Examiner,
        stranger: Stranger,
        rules: RuleBook,
        table: Table,
        secrets_manager: SecretsManagerClient,
        metrics: VendingMetrics,
        logger: Logger,
        clock: Callable[[], float] = time.time,
        shuffle: Callable[[list[CredentialId]], None] = _shuffle,
    ) -> None:
        self._examiner = examiner
        self._stranger = stranger
        self._rules = rules
        self._table = table
        self._secrets_manager = secrets_manager
        self._metrics = metrics
        self._logger = logger
        self._clock = clock
        self._shuffle = shuffle

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Probing:
        """Read settings and policy, and make clients, without a call to anybody.

        Raises ValueError, which names the variable or the policy's fault.
        """
        config, aws = Config.from_env(environ), Aws()
        secrets_manager = secrets_client(aws)
        return cls(
            examiner=Examiner(secrets_manager=secrets_manager, transport=Transport(), hosts=config.hosts),
            stranger=Stranger(lambda_client(aws), required(environ, "VEND_AS_NOBODY")),
            rules=RuleBook.load(config.access_policy),
            table=Table(dynamodb_client(aws), required(environ, "VENDING_TABLE")),
            secrets_manager=secrets_manager,
            metrics=VendingMetrics(config.service),
            logger=make_logger(config.service),
        )

    def run(self, event: object, *, request_id: str, deadline: Deadline) -> dict[str, Any]:
        """Probe the credential of `{"credential": "sandbox/tenant-a"}`, or with `{}` all of them, policy and stranger too.

        Answers `{"credentials": {credential: {"state", "cause", "code"?, "step"?, "reason"?, "upstream"?, "latencyMs"?,
        "keyAgeDays"?, "clockSkewSeconds"?, "unhealthyInARow"?}}}`, and with `{}` also `"stranger": {"refused", "answer"}`
        and `"policy": {"dangling": {rule: [credential, ...]}, "unreached": [credential, ...]}`; or, if they cannot be
        listed, `"unlisted": <why>` and neither credentials nor policy. Raises ValueError for another event.
        """
        self._logger.append_keys(requestId=request_id, correlation_id=request_id)
        if event != {}:
            if not isinstance(event, dict) or event.keys() != {"credential"}:
                raise ValueError("event: must be {} or have a credential and nothing else")
            wanted = [CredentialId.parse(event["credential"])]
            return {"credentials": self._probe(wanted, request_id, deadline, listed=False)}
        answer: dict[str, Any] = {}
        figures: dict[str, int] = {}
        known: list[CredentialId] = []
        try:
            known = sorted(credentials(self._secrets_manager, self._logger), key=str)
        except (ClientError, BotoCoreError) as exc:
            code = exc.response["Error"]["Code"] if isinstance(exc, ClientError) else type(exc).__name__
            self._logger.error("secrets cannot be listed", reason=code)  # noqa: TRY400 - the code says it all
            answer["unlisted"], figures["SecretsUnreadable"] = code, 1
        else:
            answer["credentials"] = self._probe(known, request_id, deadline, listed=True)
            answer["policy"] = policy = self._compare(known)
            figures["DanglingRules"], figures["UnreachedCredentials"] = map(len, policy.values())
        answer["stranger"] = self._ask_as_a_stranger(known, figures)
        self._metrics.probe_run(figures)
        return answer

    def _probe(
        self, wanted: list[CredentialId], request_id: str, deadline: Deadline, *, listed: bool
    ) -> dict[str, dict[str, Any]]:
        from concurrent.futures import ThreadPoolExecutor, as_completed

        # By lot: when the time does not do for all, it is not always the same ones that are not asked.
        order = list(wanted)
        self._shuffle(order)

        def probe(number: int, credential: CredentialId) -> tuple[Finding, int | None]:
            left = deadline.remaining_seconds() - SPARE_SECONDS
            if left < LEAST_SECONDS:
                return Finding("not asked", "no time was left; the next run draws lots anew"), None
            share = max(LEAST_SECONDS, min(MOST_SECONDS, left * AT_ONCE / (len(order) - number)))
            found = self._examine(credential, Deadline.after(share, deadline.clock), request_id)
            return found, self._count(credential, found, listed=listed)

        told: dict[str, dict[str, Any]] = {}
        with ThreadPoolExecutor(AT_ONCE, "probe") as pool:
            futures = {pool.submit(probe, number, credential): credential for number, credential in enumerate(order)}
            for future in as_completed(futures):
                told[str(futures[future])] = self._tell(futures[future], *future.result())
        return dict(sorted(told.items()))

    def _examine(self, credential: CredentialId, deadline: Deadline, request_id: str) -> Finding:
        try:
            return self._examiner.examine(credential, deadline=deadline, correlation_id=request_id)
        except Exception as exc:  # noqa: BLE001 - one credential's trouble must not hide the others
            self._logger.error("unexpected error", error_type=type(exc).__name__, where=where(exc))  # noqa: TRY400
            return Finding("unhealthy", "a bug of the probe; its log says where", "internal_error")

    def _count(self, credential: CredentialId, found: Finding, *, listed: bool) -> int | None:
        """How often in a row it was found unhealthy. None for what is no credential: asked for by hand, and nothing there.

        One that is listed is there: without a value its callers fail, which nobody would hear of if it did not count.
        """
        if found.code == "credential_not_found" and not listed:
            return None
        try:
            if found.state == "healthy":
                self._table.delete("probe", str(credential))
                return 0
            return self._table.add("probe", str(credential), 1, ttl=int(self._clock()) + KEPT_SECONDS)
        except TableUnavailable:
            return 0 if found.state == "healthy" else 1

    def _tell(self, credential: CredentialId, found: Finding, in_a_row: int | None) -> dict[str, Any]:
        members: dict[str, Any] = {
            "state": found.state,
            "cause": found.cause,
            "code": found.code,
            "step": found.step,
            "reason": found.reason,
            "upstream": found.upstream.as_dict() if found.upstream else None,
            "latencyMs": _rounded(found.latency_seconds, 1000, 1),
            "keyAgeDays": _rounded(found.key_age_days, 1, 2),
            "clockSkewSeconds": _rounded(found.clock_skew_seconds, 1, 1),
            "unhealthyInARow": in_a_row,
        }
        told = {name: value for name, value in members.items() if value is not None}
        say = self._logger.info if found.state == "healthy" and found.cause == "ok" else self._logger.warning
        say("probe", credential=str(credential), **told)
        if in_a_row is not None:
            skew = members["clockSkewSeconds"]
            figures = {
                "CredentialHealthy": int(found.state == "healthy"),
                "UnhealthyInARow": in_a_row,
                "SecretsUnreadable": int(found.code == "secrets_unavailable"),
                "ProbeLatency": members["latencyMs"],
                "KeyAgeDays": members["keyAgeDays"],
                "ClockSkewSeconds": None if skew is None else abs(skew),
            }
            self._metrics.probe(
                str(credential), {n: v for n, v in figures.items() if v is not None}, found.exchange_seconds
            )
        return told

    def _compare(self, known: list[CredentialId]) -> dict[str, Any]:
        dangling = {rule: list(named) for rule, named in self._rules.dangling(known).items()}
        unreached = [str(credential) for credential in self._rules.unreached(known)]
        for rule, named in dangling.items():
            self._logger.warning("rule names credentials that do not exist", rule=rule, credentials=named)
        if unreached:
            self._logger.warning("credentials that no rule reaches", credentials=unreached)
        return {"dangling": dangling, "unreached": unreached}

    def _ask_as_a_stranger(self, known: list[CredentialId], figures: dict[str, int]) -> dict[str, Any]:
        asked_for = list(known) or [NOBODYS]
        self._shuffle(asked_for)
        verdict = self._stranger.ask(asked_for[0])
        members: dict[str, Any] = {"refused": verdict.refused, "answer": verdict.answer}
        if verdict.refused is None:
            self._logger.error("stranger could not ask", credential=str(asked_for[0]), **members)
            return members
        figures["StrangerRefused"] = int(verdict.refused)
        say = self._logger.info if verdict.refused else self._logger.critical
        say("stranger refused" if verdict.refused else "stranger not refused", credential=str(asked_for[0]), **members)
        return members


def _rounded(value: float | None, times: int, digits: int) -> float | None:
    return None if value is None else round(value * times, digits)
