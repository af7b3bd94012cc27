"""The arithmetic of the cost sheet, on examples that were computed by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from unittest import mock

import pytest

from tests.bench import cost_sheet
from tests.bench.cost import document, markdown, tables
from tests.bench.cost_count import Counted, Door, Load, Mode
from tests.bench.cost_prices import Prices, Quotas, Tariff
from tests.bench.cost_sheet import NOT_COUNTED, Inputs, Sheet, access_log_bytes, combinations, monthly
from tests.bench.cost_usage import combined, read_units, total, write_units
from tests.stack import deploy, template

LOAD = Load(vends_per_second=10, environments=2, token_characters=1000)  # 3,000 vends in the window
PLATFORM_BYTES = 434  # START, END and REPORT of an invocation, and 26 for each of the three

# Each vend deletes one item of two units after a query of four; each environment writes a counter 300 times and looks at the
# brake 60 times; the refill puts as many tokens as go, and reads the secret each minute.
VENDS = {
    "call dynamodb.Query": 3120,
    "call dynamodb.DeleteItem": 3000,
    "call dynamodb.UpdateItem": 600,
    "call secrets-manager.GetSecretValue": 2,
    "read pool": 12_000,
    "read brake": 120,
    "write pool": 6000,
    "write level": 600,
    "log audit": 2_100_000,
}
REFILLS = {
    "call dynamodb.PutItem": 3000,
    "call dynamodb.UpdateItem": 10,
    "call secrets-manager.GetSecretValue": 5,
    "write pool": 6000,
    "exchange": 3000,
    "exchange sent": 1_050_000,
}


def sheet(
    mode: Mode = "pool", door: Door = "direct", *, vends: dict[str, float] | None = None, refills: bool = True
) -> Sheet:
    counted = Counted(LOAD, vends or dict(VENDS), dict(REFILLS) if refills else {}, 5 if refills else 0, frozenset())
    return Sheet(mode, door, counted)


def in_line(door: Door = "direct") -> Sheet:
    vends = {
        "exchange": 3000.0,
        "exchange sent": 1_050_000.0,
        "call secrets-manager.GetSecretValue": 2.0,
        "read brake": 120.0,
    }
    return sheet("in line", door, vends=vends, refills=False)


@pytest.mark.parametrize(
    ("item_bytes", "writes", "reads"),
    [(0, 1, 1), (1, 1, 1), (1024, 1, 1), (1025, 2, 1), (4096, 4, 1), (4097, 5, 2), (20_480, 20, 5)],
)
def test_request_units_are_rounded_up_to_one_and_four_kib(item_bytes: int, writes: int, reads: int) -> None:
    assert (write_units(item_bytes), read_units(item_bytes)) == (writes, reads)


def test_usage_is_added_up_meter_by_meter() -> None:
    assert combined([(2, {"a": 1, "b": 3}), (0.5, {"b": 4, "c": 2}), (-2, {"a": 1})]) == {"b": 8, "c": 1}


def test_a_total_takes_whole_words_only() -> None:
    usage = {"call dynamodb.Query": 1, "call dynamodb.PutItem": 2, "call dynamo.Query": 4, "called": 8, "call": 16}
    assert total(usage, "call dynamodb") == 3
    assert total(usage, "call") == 23
    assert total(usage, "read") == 0


def test_a_vend_has_its_share_of_the_refill_and_of_the_platforms_lines() -> None:
    usage = sheet().usage
    assert usage["write pool"] == 4
    assert usage["call dynamodb.UpdateItem"] == pytest.approx(610 / 3000)
    assert usage["log platform"] == pytest.approx(PLATFORM_BYTES * (1 + 5 / 3000))
    assert "log access" not in usage
    assert sheet(door="API").usage["log access"] == access_log_bytes()


def test_a_line_of_the_access_log_is_about_as_long_as_the_templates_format_makes_it() -> None:
    assert 500 < access_log_bytes() < 700


def test_time_is_own_work_and_what_is_waited_for_in_whole_milliseconds() -> None:
    # in line: 3 ms + 200 ms. From the pool: 3 ms + (3,120 + 3,000) / 3,000 calls of 5 ms = 13.2 ms, so 14.
    assert in_line().vend_seconds == 0.203
    assert sheet().vend_seconds == 0.014


def test_the_refills_time_counts_32_tokens_at_once() -> None:
    # A vend's share: 5/3000 runs of 3 ms; (1/32 + 5 first chunks of each run) waves of 205 ms; 15 calls in turn of 5 ms.
    expected_ms = 5 / 3000 * 3 + (1 / 32 + 5 * 5 / 3000) * 205 + 15 / 3000 * 5
    assert sheet().refill_seconds == pytest.approx(expected_ms / 1000)
    assert in_line().refill_seconds == 0


def test_dollars_are_amounts_times_prices() -> None:
    # GB-seconds: 1e6 x 0.203 s x 1 GB; restores: 2 environments / (7,200 s x 10/s) x 1e6 GB; KMS: (2 + 20/10) decryptions
    # in 3,000 vends; X-Ray: one a second and 5 % of nine, of ten.
    items = {(item.name, item.unit): (item.amount, item.dollars) for item in in_line().items()}
    assert items[("Lambda", "million requests")] == pytest.approx((1, 0.2))
    assert items[("Lambda", "GB-second")] == pytest.approx((203_000, 203_000 * 0.0000133334))
    assert items[("SnapStart restores", "GB")] == pytest.approx((27.78, 27.78 * 0.0001397998), rel=1e-3)
    assert items[("DynamoDB", "million write units")] == pytest.approx((0, 0))
    assert items[("DynamoDB", "million read units")] == pytest.approx((0.04, 0.04 * 0.1415))
    assert items[("Secrets Manager", "10,000 calls")] == pytest.approx((100 * 2 / 3000, 100 * 2 / 3000 * 0.05))
    assert items[("KMS", "10,000 requests")] == pytest.approx((100 * 4 / 3000, 100 * 4 / 3000 * 0.03))
    assert items[("CloudWatch Logs", "GB")] == pytest.approx((PLATFORM_BYTES / 1000, PLATFORM_BYTES / 1000 * 0.57))
    assert items[("X-Ray", "million traces")] == pytest.approx((0.145, 0.725))
    assert items[("data to Imburse", "GB")] == pytest.approx((0.35, 0.35 * 0.09))
    assert items[("API Gateway", "million requests")] == pytest.approx((0, 0))
    assert in_line().dollars_per_million() == pytest.approx(sum(dollars for _, dollars in items.values()))


def test_the_api_costs_its_requests_and_its_log_more() -> None:
    more = in_line("API").dollars_per_million() - in_line().dollars_per_million()
    assert more == pytest.approx(3.5 + access_log_bytes() / 1000 * 0.57)


def test_a_quota_is_reached_where_the_vends_of_a_second_use_it_up() -> None:
    limits = {limit.name: limit.vends_per_second for limit in sheet().limits()}
    assert limits["Lambda: executions at once"] == pytest.approx(1000 / (0.014 + sheet().refill_seconds))
    assert limits["Lambda: requests"] == pytest.approx(10_000 / (1 + 5 / 3000))
    assert limits["DynamoDB: writes of the table"] == pytest.approx(40_000 / 4.2)
    assert limits["DynamoDB: reads of the table"] == pytest.approx(40_000 / 4.04)
    # A partition takes 1,000 write units or 3,000 read units a second, or a part of each: 4 / 1,000 + 4 / 3,000 a vend.
    assert limits["DynamoDB: the partition pool#..."] == pytest.approx(187.5)
    assert limits["DynamoDB: the partition brake#..."] == pytest.approx(75_000)
    assert limits["Secrets Manager: reads"] == pytest.approx(10_000 * 3000 / 7)
    assert limits["KMS: decryptions"] == pytest.approx(
        100_000 * 3000 / 9
    )  # the secrets, and two environments' table key
    assert limits["CloudWatch Logs: deliveries"] == pytest.approx(5_000 / 0.2)
    assert limits["STS: requests"] == 600
    assert limits["our refill: tokens of one credential"] == pytest.approx(32 / 0.205)


def test_what_kms_is_paid_for_is_what_its_quota_is_held_against() -> None:
    (item,) = (item for item in sheet().items() if item.name == "KMS")
    (limit,) = (limit for limit in sheet().limits() if limit.name == "KMS: decryptions")
    assert item.amount == pytest.approx(100 * limit.per_vend)


def test_the_api_ends_first_at_the_templates_own_throttle() -> None:
    (settings,) = template()["Resources"]["VendingApi"]["Properties"]["MethodSettings"]
    first = in_line("API").limits()[0]
    assert first.name == f"our API's throttle (bursts of {settings['ThrottlingBurstLimit']})"
    assert first.vends_per_second == settings["ThrottlingRateLimit"] == 200
    assert not any("throttle" in limit.name for limit in in_line().limits())


def test_executions_that_are_kept_for_a_function_are_all_that_it_has() -> None:
    name = "our function: executions kept for it"
    assert Inputs().reserved_concurrency == template()["Parameters"]["ReservedConcurrency"]["Default"]
    kept = dataclasses.replace(in_line(), inputs=Inputs(reserved_concurrency=50))
    reached = {limit.name: limit.vends_per_second for limit in kept.limits()}
    assert reached[name] == pytest.approx(50 / 0.203)
    assert name not in {limit.name for limit in in_line().limits()}


def test_limits_come_lowest_first_and_only_where_something_is_used() -> None:
    made = in_line("API").limits()
    reached = [limit.vends_per_second for limit in made]
    assert reached == sorted(reached)
    assert math.inf not in reached
    names = {limit.name for limit in made}
    assert "API Gateway: requests" in names
    assert not names & {"STS: requests", "DynamoDB: writes of the table", "our refill: tokens of one credential"}


def test_what_a_stack_costs_without_a_vend_is_what_its_template_makes() -> None:
    # Six functions of 1 GB for 730 hours; each metric by its price.
    costs = monthly(Tariff(), Inputs(), 10)
    assert costs["SnapStart cache, one version of 6 functions"] == pytest.approx(6 * 730 * 3600 * 0.0000015046)
    assert costs["a credential: 10 metrics of vend, api and refill"] == pytest.approx(3.0)
    assert costs["the key"] == 1


def test_an_alarm_costs_each_metric_that_it_looks_at() -> None:
    (name,) = (name for name in monthly(Tariff(), Inputs(), 0) if "alarms" in name)
    alarms = deploy(OrganizationId="o-exampleorg1").of_type("AWS::CloudWatch::Alarm").values()
    of_math = [sum("MetricStat" in metric for metric in alarm["Metrics"]) for alarm in alarms if "Metrics" in alarm]
    of_one = sum("MetricName" in alarm for alarm in alarms)
    metrics = sum(of_math) + of_math.count(0) + of_one  # one asks a rule of Contributor Insights, which is one metric
    assert name == f"{len(alarms)} alarms that look at {metrics} metrics"
    assert metrics > len(alarms)
    assert monthly(Tariff(), Inputs(), 0)[name] == pytest.approx(metrics * 0.1)


def test_each_method_of_the_api_that_is_called_has_five_metrics_of_its_own() -> None:
    def detailed(methods: float) -> float:
        costs = monthly(Tariff(), Inputs(api_methods=methods), 0)
        return costs[f"detailed metrics of the API, {methods:g} of its methods called"]

    assert (detailed(1), detailed(4)) == pytest.approx((5 * 0.3, 20 * 0.3))
    with mock.patch.object(cost_sheet, "api_settings", return_value={"MetricsEnabled": False}):
        assert detailed(1) == 0


def test_prices_and_quotas_are_changed_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(
        json.dumps({"prices": {"lambda_gb_second": 1.5}, "quotas": {"api_requests": 7}, "as_of": "2027-01"})
    )
    tariff = Tariff.read(path)
    assert (tariff.prices.lambda_gb_second, tariff.quotas.api_requests, tariff.as_of) == (1.5, 7, "2027-01")
    assert (tariff.prices.kms_key_month, tariff.region) == (Prices().kms_key_month, "eu-west-1")
    assert dataclasses.replace(tariff.quotas, api_requests=Quotas().api_requests) == Quotas()


@pytest.mark.parametrize("text", ['{"prices": {"lambda_gb_secnd": 1}}', '{"quota": {}}'])
def test_a_price_by_a_name_that_there_is_not_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"prices\.json"):
        Tariff.read(path)


def test_the_readmes_table_and_the_document_have_every_mode_by_both_doors() -> None:
    made = [sheet(mode, door, refills=mode == "pool") for mode, door in combinations()]
    lines = markdown(made).splitlines()
    assert lines[0].startswith(
        "Counted at 10 vends a second of one credential in 2 environments, tokens of 1,000 characters."
    )
    assert [line.split(" | ")[0] for line in lines[4:-2]] == [
        f"| {mode}, {door}" for mode in ("in line", "pool", "shared") for door in ("by direct invoke", "by the API")
    ]
    assert "STS" not in lines[4]  # it counts only for who brings a proof
    assert lines[-1] == NOT_COUNTED
    assert "our API's throttle (bursts of 400) 200" in lines[5]
    assert "throttle" not in lines[4]
    kept = json.loads(json.dumps(document(made)))
    assert kept["inputs"] == dataclasses.asdict(Inputs())
    assert [vend["dollarsPerMillion"] for vend in kept["vends"]] == [one.dollars_per_million() for one in made]
    assert [table.row_count for table in tables(made)] == [
        8,
        12,
        len({limit["name"] for vend in kept["vends"] for limit in vend["limits"]}),
        8,
    ]
