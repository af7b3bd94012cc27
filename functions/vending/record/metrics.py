"""Metrics by Powertools, as embedded metric format on standard output: no call, no wait.

By [service] and [service, credential]: TokensVended, ExchangeLatency (ms), ExchangeAttempts and SecretReads; of a credential
with a pool PoolHit and PoolMiss (tokens that it had and had not), PoolUnavailable (visits that it did not answer) and
TokensWasted; of the refill PoolDepth, PoolTarget, TokensPooled and RefillFailed; BudgetUnavailable and BrakeUnavailable;
BudgetUsedPercent, of the fullest budget that a visit spent from, or 100 where one refused it.
RequestsRefused by [service], [service, code] and [service, credential, code]. TokensFailed by [service] and
[service, credential, code].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

# A stranger chooses the id in a refused request; each new one would be a new metric, which costs money.
UNLISTED = "(unlisted)"

# What a visit may note besides, by name; anything else is a slip.
NOTES = ("PoolHit", "PoolMiss", "PoolUnavailable", "TokensWasted", "BudgetUnavailable", "BrakeUnavailable")
REFILL = ("PoolDepth", "PoolTarget", "TokensPooled", "TokensWasted", "RefillFailed", "PoolUnavailable")
PROBE = {
    "CredentialHealthy": MetricUnit.Count,
    "UnhealthyInARow": MetricUnit.Count,
    "SecretsUnreadable": MetricUnit.Count,
    "ProbeLatency": MetricUnit.Milliseconds,
    "KeyAgeDays": MetricUnit.NoUnit,
    "ClockSkewSeconds": MetricUnit.Seconds,
}
PROBE_RUN = ("StrangerRefused", "DanglingRules", "UnreachedCredentials", "SecretsUnreadable")


class VendingMetrics:
    """Counts visits. Called once a visit, on the thread that answers it."""

    def __init__(self, service: str) -> None:
        self._service = service

    def visit(
        self,
        credential: str | None,
        vended: int,
        latencies_seconds: Sequence[float],
        *,
        secret_reads: int,
        notes: Iterable[str] = (),
        budget_used_percent: float | None = None,
    ) -> None:
        """What a visit gave and cost; one that neither vended, cost nor spent anything leaves no line."""
        noted = Counter(notes)
        if not (vended or latencies_seconds or secret_reads or noted or budget_used_percent is not None):
            return
        metrics = self._metrics()
        metrics.add_dimensions(service=self._service, credential=credential or UNLISTED)
        # First: Powertools writes a line at each hundredth value, and an empty last one would be a warning.
        for seconds in latencies_seconds:
            metrics.add_metric("ExchangeLatency", MetricUnit.Milliseconds, round(seconds * 1000, 3))
        metrics.add_metric("TokensVended", MetricUnit.Count, vended)
        metrics.add_metric("ExchangeAttempts", MetricUnit.Count, len(latencies_seconds))
        metrics.add_metric("SecretReads", MetricUnit.Count, secret_reads)
        for name in NOTES:
            if name in noted:
                metrics.add_metric(name, MetricUnit.Count, noted[name])
        if budget_used_percent is not None:
            metrics.add_metric("BudgetUsedPercent", MetricUnit.Percent, round(budget_used_percent, 1))
        metrics.flush_metrics()

    def refill(self, credential: str, values: Mapping[str, int]) -> None:
        """What a run of the refill found and did for one credential."""
        metrics = self._metrics()
        metrics.add_dimensions(service=self._service, credential=credential)
        for name in REFILL:
            if name in values:
                metrics.add_metric(name, MetricUnit.Count, values[name])
        metrics.flush_metrics()

    def probe(self, credential: str, values: Mapping[str, float], latencies_seconds: Sequence[float]) -> None:
        """What a probe found of one credential; a figure that it could not find out is left out."""
        metrics = self._metrics()
        metrics.add_dimensions(service=self._service, credential=credential)
        for name, unit in PROBE.items():
            if name in values:
                metrics.add_metric(name, unit, values[name])
        for seconds in latencies_seconds:
            metrics.add_metric("ExchangeLatency", MetricUnit.Milliseconds, round(seconds * 1000, 3))
        metrics.flush_metrics()

    def probe_run(self, values: Mapping[str, int]) -> None:
        """What a run of the probe found besides the credentials."""
        if not values:
            return
        metrics = self._metrics()
        for name in PROBE_RUN:
            if name in values:
                metrics.add_metric(name, MetricUnit.Count, values[name])
        metrics.flush_metrics()

    def rotation(self, *, waiting: int, deleted: int) -> None:
        """What a sweep found and did: old keys that are still to be deleted, and those that were."""
        metrics = self._metrics()
        metrics.add_metric("KeysWaiting", MetricUnit.Count, waiting)
        metrics.add_metric("KeysDeleted", MetricUnit.Count, deleted)
        metrics.flush_metrics()

    def refused(self, credential: str | None, code: str) -> None:
        """A visit that ended in an error."""
        metrics = self._metrics()
        metrics.add_dimensions(service=self._service, code=code)
        metrics.add_dimensions(service=self._service, credential=credential or UNLISTED, code=code)
        metrics.add_metric("RequestsRefused", MetricUnit.Count, 1)
        metrics.flush_metrics()

    def failed(self, credential: str | None, failures: Mapping[str, int]) -> None:
        """Tokens that an authorized caller asked for and did not get, also those that are missing from a batch."""
        for code, count in failures.items():
            metrics = self._metrics()
            metrics.add_dimensions(service=self._service, credential=credential or UNLISTED, code=code)
            metrics.add_metric("TokensFailed", MetricUnit.Count, count)
            metrics.flush_metrics()

    def _metrics(self) -> EphemeralMetrics:
        metrics = EphemeralMetrics(namespace="ImburseVending", service=self._service)
        metrics.add_dimension("service", self._service)
        return metrics
