"""What AWS charges and allows, as inputs to the cost sheet: `python -m tests.bench.cost --prices FILE.json` changes any of it.

AWS cannot be asked from a machine without an account, so these were written down by hand: list prices in dollars for eu-west-1,
without free tier, discounts and taxes, and default quotas of an account in a region. Those marked (*) were checked against a copy
of the page that is named; the others are from memory of it, of late 2025. Look them up before a decision hangs on one.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

REGION, AS_OF = "eu-west-1", "2025-12"


@dataclass(frozen=True)
class Prices:
    """Dollars."""

    # https://aws.amazon.com/lambda/pricing/ : arm64, first tier (*); SnapStart for Python, cache and restore (*)
    lambda_million_requests: float = 0.20
    lambda_gb_second: float = 0.0000133334
    snapstart_cache_gb_second: float = 0.0000015046
    snapstart_restore_gb: float = 0.0001397998
    # https://aws.amazon.com/api-gateway/pricing/ : REST, first tier
    api_million_requests: float = 3.50
    # https://aws.amazon.com/dynamodb/pricing/on-demand/ : since November 2024; us-east-1 is 0.625 and 0.125 (*)
    dynamodb_million_write_units: float = 0.705
    dynamodb_million_read_units: float = 0.1415
    # https://aws.amazon.com/secrets-manager/pricing/
    secrets_10k_calls: float = 0.05
    secret_month: float = 0.40
    # https://aws.amazon.com/kms/pricing/
    kms_10k_requests: float = 0.03
    kms_key_month: float = 1.00
    # https://aws.amazon.com/cloudwatch/pricing/
    logs_gb_ingested: float = 0.57
    metric_month: float = 0.30
    alarm_metric_month: float = 0.10  # each metric that an alarm looks at
    dashboard_month: float = 3.00
    insight_rule_month: float = 0.50
    # https://aws.amazon.com/xray/pricing/
    xray_million_traces: float = 5.00
    # https://aws.amazon.com/ec2/pricing/on-demand/ : data transfer out to the internet, first tier
    internet_gb_out: float = 0.09


@dataclass(frozen=True)
class Quotas:
    """What an account may do in a region unless AWS raises it, a second where nothing else is said."""

    # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    lambda_concurrency: float = 1_000  # executions at the same time
    lambda_requests_per_concurrency: float = 10
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
    api_requests: float = 10_000
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html (*)
    dynamodb_table_write_units: float = 40_000
    dynamodb_table_read_units: float = 40_000
    # https://repost.aws/knowledge-center/on-demand-table-throttling-dynamodb (*); cannot be raised
    dynamodb_partition_write_units: float = 1_000
    dynamodb_partition_read_units: float = 3_000
    # https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html (*)
    secrets_get_value: float = 10_000
    # https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html : symmetric keys in eu-west-1
    kms_symmetric: float = 100_000
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
    logs_put_events: float = 5_000
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    sts_requests: float = 600


@dataclass(frozen=True)
class Tariff:
    """Both, and since when they are believed."""

    prices: Prices = Prices()
    quotas: Quotas = Quotas()
    region: str = REGION
    as_of: str = AS_OF

    @classmethod
    def read(cls, path: Path) -> Tariff:
        """Ours, changed by `{"prices": {...}, "quotas": {...}, "region"?, "as_of"?}`. ValueError: a name that is none of ours."""
        given = json.loads(path.read_text())
        try:
            return cls(
                dataclasses.replace(Prices(), **given.pop("prices", {})),
                dataclasses.replace(Quotas(), **given.pop("quotas", {})),
                **given,
            )
        except TypeError as exc:
            raise ValueError(f"{path}: {exc}") from None
