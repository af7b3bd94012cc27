"""The refill function: each minute all pools, or when woken the one that runs low."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from imburse_auth.aws import Aws
from imburse_auth.credential import CredentialId
from imburse_auth.exchange import Exchange
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore, secrets_client
from imburse_auth.transport import Transport
from vending.access.brake import Brake
from vending.config import hosts_from_env, required
from vending.listing import credentials
from vending.record.log import make_logger
from vending.record.metrics import VendingMetrics
from vending.supply.backoff import Backoff
from vending.supply.pool import Pool
from vending.supply.refill import Filled, Refill
from vending.table import Table, dynamodb_client

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

SPARE_SECONDS = 5.0  # kept back from the function's time, to write down what was begun

# Not `random`: its state is part of a SnapStart snapshot.
_shuffle = SystemRandom().shuffle


class Filling:
    """Fills pools one after the other, and tells the log and the metrics of each."""

    def __init__(
        self,
        *,
        refill: Refill,
        secrets_manager: SecretsManagerClient,
        metrics: VendingMetrics,
        logger: Logger,
        shuffle: Callable[[list[CredentialId]], None] = _shuffle,
    ) -> None:
        self._refill = refill
        self._secrets_manager = secrets_manager
        self._metrics = metrics
        self._logger = logger
        self._shuffle = shuffle

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Filling:
        """Read settings and make clients, without a call to anybody. Raises ValueError, which names the variable."""
        service = required(environ, "POWERTOOLS_SERVICE_NAME")
        hosts, aws = hosts_from_env(environ), Aws()
        table = Table(dynamodb_client(aws), required(environ, "VENDING_TABLE"))
        secrets_manager = secrets_client(aws)
        brake = Brake(table)
        return cls(
            refill=Refill(
                secrets=SecretStore(secrets_manager),
                exchange=Exchange(Transport()),
                hosts=hosts,
                pool=Pool(table),
                table=table,
                backoff=Backoff(table),
                frozen=lambda credential: brake.stops(credential) is not None,
            ),
            secrets_manager=secrets_manager,
            metrics=VendingMetrics(service),
            logger=make_logger(service),
        )

    def run(self, event: object, *, request_id: str, deadline: Deadline) -> dict[str, Any]:
        """Fill the pool of `{"credential": "sandbox/tenant-a"}`, or with `{}` all of them.

        Answers `{"pools": {credential: {"state", "depth"?, "target"?, "added", "wasted", "code"?}}}`. Raises ValueError for
        another event, and what boto3 raises when the secrets cannot be listed.
        """
        self._logger.append_keys(requestId=request_id, correlation_id=request_id)
        wanted = self._wanted(event)
        # By lot: when the time does not do for all, it is not always the same ones that wait for the next minute.
        self._shuffle(wanted)
        pools: dict[str, dict[str, Any]] = {}
        for number, credential in enumerate(wanted):
            share_seconds = (deadline.remaining_seconds() - SPARE_SECONDS) / (len(wanted) - number)
            filled = self._refill.run(
                credential, deadline=Deadline.after(share_seconds, deadline.clock), correlation_id=request_id
            )
            if filled.state != "no pool":
                pools[str(credential)] = self._tell(credential, filled)
        return {"pools": pools}

    def _wanted(self, event: object) -> list[CredentialId]:
        if event == {}:
            return list(credentials(self._secrets_manager, self._logger))
        if not isinstance(event, dict) or event.keys() != {"credential"}:
            raise ValueError("event: must be {} or have a credential and nothing else")
        return [CredentialId.parse(event["credential"])]

    def _tell(self, credential: CredentialId, filled: Filled) -> dict[str, Any]:
        figures = {
            "PoolDepth": filled.depth,
            "PoolTarget": filled.target,
            "TokensPooled": filled.added,
            "TokensWasted": filled.wasted,
            # Counted again each minute while it is left alone, so that the alarm stays on as long as the trouble.
            "RefillFailed": 1 if filled.state in ("failed", "backing off") else None,
            "PoolUnavailable": 1 if filled.code == "table_unavailable" else None,
        }
        self._metrics.refill(str(credential), {name: n for name, n in figures.items() if n is not None})
        members: dict[str, Any] = {
            "state": filled.state,
            "depth": filled.depth,
            "target": filled.target,
            "added": filled.added,
            "wasted": filled.wasted,
            "code": filled.code,
        }
        told = {name: value for name, value in members.items() if value is not None}
        say = self._logger.warning if filled.state == "failed" else self._logger.info
        say("pool", credential=str(credential), **told)
        return told
