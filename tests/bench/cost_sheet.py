"""From what was counted to dollars and limits. Every figure is a product of a count, an input and a price, and says which."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.cost_count import CREDENTIAL, MODES, WINDOW_SECONDS, Counted, Door, Mode
from tests.bench.cost_prices import Tariff
from tests.bench.cost_usage import LOG_EVENT_BYTES, Usage, combined, total
from tests.stack import ORGANIZATION, deploy, template
from vending.supply.refill import LARGEST_CHUNK

MILLION, GB, MONTH_SECONDS = 1e6, 1e9, 730 * 3600
REQUEST_ID, TRACE_ID = "3a1b6b6e-0000-4000-8000-000000000001", "1-5759e988-bd862e3fe1be46a994272793"

# What Lambda itself writes into a function's log group at each invocation, with LogFormat Text.
REPORT = (
    f"REPORT RequestId: {REQUEST_ID}\tDuration: 204.52 ms\tBilled Duration: 205 ms\tMemory Size: 1024 MB\tMax Memory Used: 110 MB\t\n"
    f"XRAY TraceId: {TRACE_ID}\tSegmentId: 557abcec3404e5a8\tSampled: true\t\n"
)
PLATFORM_LINES = (f"START RequestId: {REQUEST_ID} Version: 12\n", f"END RequestId: {REQUEST_ID}\n", REPORT)
DETAILED_METRICS = 5  # of a method of the API: Count, Latency, IntegrationLatency, 4XXError and 5XXError
NOT_COUNTED = (
    "Not in the dollars: keeping the logs, the free tier, tax, data to callers over the internet, retries and refused requests, the other functions' "
    "schedules, and further versions in SnapStart's cache."
)
# What stands for API Gateway's variables in its access log; the others have ten characters.
ACCESS_LOG = {
    "requestId": REQUEST_ID,
    "requestTime": "26/Feb/2021:14:33:20 +0000",
    "identity.userArn": "arn:aws:sts::123456789012:assumed-role/orders/i-0123456789abcdef0",
    "path": f"/v1/credentials/{CREDENTIAL}/token",
    "integration.requestId": REQUEST_ID,
    "xrayTraceId": TRACE_ID,
}


@dataclass(frozen=True)
class Inputs:
    """What cannot be counted here, and is assumed."""

    upstream_ms: float = 200.0  # an exchange, as the function waits for it
    dynamodb_ms: float = 5.0  # a call to the table
    own_ms: float = 3.0  # a vend's own work, on the CPU that comes with 1 GB
    environment_hours: float = 2.0  # how long Lambda keeps an environment
    log_deliveries_per_second: float = 1.0  # by which an environment's lines reach CloudWatch
    api_methods: float = 1.0  # of the API that are called in a month: each has detailed metrics
    reserved_concurrency: float = 0.0  # the template's ReservedConcurrency; 0 is none


@dataclass(frozen=True)
class Item:
    """Something that a million vends use and what it costs: so many units at so many dollars each."""

    name: str
    amount: float
    unit: str
    price: float

    @property
    def dollars(self) -> float:
        """For a million vends."""
        return self.amount * self.price


@dataclass(frozen=True)
class Limit:
    """A quota, and how much of it a vend uses; `condition` is when it counts at all."""

    name: str
    quota: float
    per_vend: float
    condition: str = ""

    @property
    def vends_per_second(self) -> float:
        """At which it is reached."""
        return self.quota / self.per_vend if self.per_vend > 0 else math.inf


@dataclass(frozen=True)
class Sheet:
    """One mode by one door."""

    mode: Mode
    door: Door
    counted: Counted
    tariff: Tariff = field(default_factory=Tariff)
    inputs: Inputs = field(default_factory=Inputs)

    @property
    def usage(self) -> dict[str, float]:
        """A vend's, with the refill's share of it and what AWS writes into the logs."""
        runs = 1 + self.refill_runs
        logs = {"log platform": runs * sum(len(line) + LOG_EVENT_BYTES for line in PLATFORM_LINES)}
        if self.door == "API":
            logs["log access"] = access_log_bytes()
        return combined([(1, self.counted.per_vend()), (1, self.counted.refill_per_vend()), (1, logs)])

    @property
    def refill_runs(self) -> float:
        """Invocations of the refill function a vend."""
        return self.counted.refill_runs / self.counted.load.vends

    @property
    def vend_seconds(self) -> float:
        """How long a vend takes, billed in whole milliseconds. Counters are written beside the claim and take no time of it."""
        own = self.counted.per_vend()
        waited = sum(own.get(f"call dynamodb.{name}", 0.0) for name in ("Query", "GetItem", "DeleteItem"))
        return math.ceil(self.inputs.own_ms + self._upstream(own) + waited * self.inputs.dynamodb_ms) / 1000

    @property
    def refill_seconds(self) -> float:
        """The refill's share: its calls one after the other, but for the tokens, up to 32 of which come at a time."""
        refill = self.counted.refill_per_vend()
        tokens = refill.get("exchange", 0.0)
        waves = tokens / LARGEST_CHUNK + self.refill_runs * math.log2(LARGEST_CHUNK) if tokens else 0.0
        in_turn = total(refill, "call") - tokens
        per_wave = self.inputs.upstream_ms + self.inputs.dynamodb_ms
        return (self.refill_runs * self.inputs.own_ms + waves * per_wave + in_turn * self.inputs.dynamodb_ms) / 1000

    def items(self) -> list[Item]:
        """What a million vends are paid for by."""
        prices, load, usage = self.tariff.prices, self.counted.load, self.usage
        seconds, rate = self.vend_seconds + self.refill_seconds, load.vends_per_second
        starts = load.environments / (self.inputs.environment_hours * 3600 * rate)
        traced = (
            min(rate, 1) + 0.05 * max(0.0, rate - 1)
        ) / rate  # X-Ray's default: one a second, and 5 % of the others
        gb, sent = memory_gb(), usage.get("exchange sent", 0.0)
        return [
            Item("API Gateway", float(self.door == "API"), "million requests", prices.api_million_requests),
            Item("Lambda", 1 + self.refill_runs, "million requests", prices.lambda_million_requests),
            Item("Lambda", MILLION * seconds * gb, "GB-second", prices.lambda_gb_second),
            Item("SnapStart restores", MILLION * starts * gb, "GB", prices.snapstart_restore_gb),
            Item("DynamoDB", total(usage, "write"), "million write units", prices.dynamodb_million_write_units),
            Item("DynamoDB", total(usage, "read"), "million read units", prices.dynamodb_million_read_units),
            Item(
                "Secrets Manager", 100 * total(usage, "call secrets-manager"), "10,000 calls", prices.secrets_10k_calls
            ),
            Item("KMS", 100 * self._decryptions, "10,000 requests", prices.kms_10k_requests),
            Item("CloudWatch Logs", MILLION * total(usage, "log") / GB, "GB", prices.logs_gb_ingested),
            Item("X-Ray", traced, "million traces", prices.xray_million_traces),
            Item("data to Imburse", MILLION * sent / GB, "GB", prices.internet_gb_out),
        ]

    def dollars_per_million(self) -> float:
        """All of it together."""
        return sum(item.dollars for item in self.items())

    def limits(self) -> list[Limit]:
        """Each with what a vend uses of it, on the assumption that environments come in step with vends. The lowest first."""
        quotas, load, usage = self.tariff.quotas, self.counted.load, self.usage
        concurrency = quotas.lambda_concurrency
        logs = load.environments * self.inputs.log_deliveries_per_second / load.vends_per_second
        found = [
            Limit("Lambda: executions at once", concurrency, self.vend_seconds + self.refill_seconds),
            Limit("Lambda: requests", concurrency * quotas.lambda_requests_per_concurrency, 1 + self.refill_runs),
            Limit("our function: executions kept for it", self.inputs.reserved_concurrency, self.vend_seconds),
            Limit("DynamoDB: writes of the table", quotas.dynamodb_table_write_units, total(usage, "write")),
            Limit("DynamoDB: reads of the table", quotas.dynamodb_table_read_units, total(usage, "read")),
            Limit("Secrets Manager: reads", quotas.secrets_get_value, self._secret_reads),
            Limit("KMS: decryptions", quotas.kms_symmetric, self._decryptions),
            Limit("CloudWatch Logs: deliveries", quotas.logs_put_events, logs),
        ]
        for name in sorted({meter.split(" ")[1] for meter in usage if meter.startswith(("read ", "write "))}):
            # A partition takes both at once, each in proportion.
            share = usage.get(f"write {name}", 0.0) / quotas.dynamodb_partition_write_units
            share += usage.get(f"read {name}", 0.0) / quotas.dynamodb_partition_read_units
            found.append(Limit(f"DynamoDB: the partition {name}#...", 1.0, share))
        if self.door == "API":
            found.append(Limit("API Gateway: requests", quotas.api_requests, 1.0))
            throttle = api_settings()
            burst = throttle["ThrottlingBurstLimit"]
            found.append(Limit(f"our API's throttle (bursts of {burst})", throttle["ThrottlingRateLimit"], 1.0))
        else:
            found.append(Limit("STS: requests", quotas.sts_requests, 1.0, "if each brings a proof"))
        if self.mode == "pool":
            wave_seconds = (self.inputs.upstream_ms + self.inputs.dynamodb_ms) / 1000
            found.append(Limit("our refill: tokens of one credential", LARGEST_CHUNK / wave_seconds, 1.0))
        return sorted(
            (limit for limit in found if limit.per_vend > 0 and limit.quota > 0),
            key=lambda limit: limit.vends_per_second,
        )

    @property
    def _decryptions(self) -> float:
        """One for each secret read, and the table's key for each environment every five minutes."""
        load = self.counted.load
        return self._secret_reads + load.environments / (WINDOW_SECONDS * load.vends_per_second)

    @property
    def _secret_reads(self) -> float:
        return self.usage.get("call secrets-manager.GetSecretValue", 0.0)

    def _upstream(self, usage: Usage) -> float:
        return usage.get("exchange", 0.0) * self.inputs.upstream_ms


def monthly(tariff: Tariff, inputs: Inputs, metrics: int) -> dict[str, float]:
    """What the stack costs a month besides its vends: dollars, by the template's resources and one credential's metrics."""
    prices, stack = tariff.prices, deploy(OrganizationId=ORGANIZATION)
    functions = len(stack.of_type("AWS::Lambda::Function"))
    cached = functions * memory_gb() * MONTH_SECONDS * prices.snapstart_cache_gb_second
    alarms = stack.of_type("AWS::CloudWatch::Alarm").values()
    watched = sum(sum("MetricStat" in metric for metric in alarm.get("Metrics", ())) or 1 for alarm in alarms)
    detailed = inputs.api_methods * DETAILED_METRICS if api_settings()["MetricsEnabled"] else 0
    return {
        f"SnapStart cache, one version of {functions} functions": cached,
        f"{len(alarms)} alarms that look at {watched} metrics": watched * prices.alarm_metric_month,
        f"detailed metrics of the API, {inputs.api_methods:g} of its methods called": detailed * prices.metric_month,
        "the dashboard": len(stack.of_type("AWS::CloudWatch::Dashboard")) * prices.dashboard_month,
        "the rule for refused callers": len(stack.of_type("AWS::CloudWatch::InsightRule")) * prices.insight_rule_month,
        "the key": len(stack.of_type("AWS::KMS::Key")) * prices.kms_key_month,
        "a credential: its secret": prices.secret_month,
        f"a credential: {metrics} metrics of vend, api and refill": metrics * prices.metric_month,
    }


def api_settings() -> Mapping[str, Any]:
    """What the template says of every method of the API: its throttle and its metrics."""
    (stage,) = deploy(OrganizationId=ORGANIZATION).of_type("AWS::ApiGateway::Stage").values()
    (settings,) = stage["MethodSettings"]
    assert (settings["ResourcePath"], settings["HttpMethod"]) == ("/*", "*")
    return dict(settings)


def memory_gb() -> float:
    """Of a function, by the template."""
    return float(template()["Globals"]["Function"]["MemorySize"]) / 1024


def access_log_bytes() -> int:
    """A line of API Gateway's access log, in the template's format."""
    form: str = template()["Resources"]["VendingApi"]["Properties"]["AccessLogSetting"]["Format"]
    line = re.sub(r"\$context\.([A-Za-z.]+)", lambda match: ACCESS_LOG.get(match[1], "x" * 10), form)
    return len(line) + LOG_EVENT_BYTES


def combinations() -> Sequence[tuple[Mode, Door]]:
    """Every mode by both doors."""
    doors: tuple[Door, ...] = ("direct", "API")
    return [(mode, door) for mode in MODES for door in doors]
