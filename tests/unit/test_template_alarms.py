"""The alarms: what those of the probe watch, and that whoever is woken by one is told what it means and what to do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.stack import ROOT, Stack, deploy
from vending.record.audit import AuditRecord, AuditTrail
from vending.record.metrics import PROBE, PROBE_RUN

ALARMS = sorted(deploy().of_type("AWS::CloudWatch::Alarm"))
RUNBOOK = (ROOT / "README.md").read_text("utf-8").partition("### Runbook")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def stack() -> Stack:
    return deploy()


@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm_says_what_it_means_and_what_to_do_and_where_the_rest_is(stack: Stack, alarm: str) -> None:
    description = stack.properties(alarm)["AlarmDescription"]
    said, pointer = description.rsplit(" README: ", 1)
    assert pointer == f"Runbook, {alarm}."
    assert len(re.findall(r"[.;](?: |$)", said)) >= 2, "a meaning, and a first thing to do"
    assert len(description) <= 1024  # CloudWatch takes no more


@pytest.mark.parametrize("alarm", ALARMS)
def test_an_alarm_has_its_row_in_the_runbook(alarm: str) -> None:
    rows = [line for line in RUNBOOK.splitlines() if line.startswith("| ")]
    assert [row for row in rows if f"`{alarm}`" in row.split("|")[1]], f"{alarm} has no row"


def test_the_runbook_names_no_alarm_that_is_not_there() -> None:
    assert set(re.findall(r"`(\w+Alarm)`", RUNBOOK)) <= set(ALARMS)


@pytest.mark.parametrize(
    ("alarm", "metric", "statistic", "threshold", "rings_at", "silent_at"),
    [
        ("CredentialUnhealthyAlarm", "UnhealthyInARow", "Maximum", 2, 2, 1),
        ("KeyTooOldAlarm", "KeyAgeDays", "Maximum", 90, 90.1, 90),
        ("StrangerServedAlarm", "StrangerRefused", "Minimum", 1, 0, 1),
        ("ProbeSilentAlarm", "StrangerRefused", "SampleCount", 1, 0, 1),
    ],
)
def test_an_alarm_of_the_probe_rings_when_it_should(
    stack: Stack, alarm: str, metric: str, statistic: str, threshold: int, rings_at: float, silent_at: float
) -> None:
    properties = stack.properties(alarm)
    assert (properties["Namespace"], properties["MetricName"]) == ("ImburseVending", metric)
    assert metric in {*PROBE, *PROBE_RUN}
    assert properties["Dimensions"] == [{"Name": "service", "Value": "probe"}]
    assert (properties["Statistic"], float(properties["Threshold"])) == (statistic, threshold)
    assert int(properties.get("DatapointsToAlarm", properties["EvaluationPeriods"])) == 1, "the first that is bad rings"
    compare: Any = {
        "GreaterThanOrEqualToThreshold": float.__ge__,
        "GreaterThanThreshold": float.__gt__,
        "LessThanThreshold": float.__lt__,
    }[properties["ComparisonOperator"]]
    assert compare(float(rings_at), float(threshold))
    assert not compare(float(silent_at), float(threshold))


def test_a_silent_probe_rings_and_between_two_probes_nothing_changes(stack: Stack) -> None:
    assert stack.properties("ProbeSilentAlarm")["TreatMissingData"] == "breaching"
    assert stack.properties("ProbeSilentAlarm")["Period"] >= 2 * 900
    for alarm in ("CredentialUnhealthyAlarm", "KeyTooOldAlarm", "StrangerServedAlarm"):
        assert stack.properties(alarm)["TreatMissingData"] == "ignore"


def test_the_limit_of_a_keys_age_is_a_parameter() -> None:
    assert int(deploy(KeyAgeLimitDays="30").properties("KeyTooOldAlarm")["Threshold"]) == 30


@pytest.mark.parametrize("alarm", ["ExchangeLatencyAlarm", "SecretsUnreadableAlarm"])
def test_an_alarm_over_several_functions_looks_at_every_figure_that_it_asks_for(stack: Stack, alarm: str) -> None:
    (formula, *figures) = stack.properties(alarm)["Metrics"]
    assert set(re.findall(r"FILL\((\w+), 0\)", formula["Expression"])) == {figure["Id"] for figure in figures}
    services = {d["Value"] for f in figures for d in f["MetricStat"]["Metric"]["Dimensions"] if d["Name"] == "service"}
    assert services == {"vend", "api", "probe"}
    assert all(figure["ReturnData"] is False for figure in figures)


def test_slow_exchanges_are_judged_by_the_slowest_function(stack: Stack) -> None:
    (formula, *figures) = stack.properties("ExchangeLatencyAlarm")["Metrics"]
    assert re.fullmatch(r"MAX\(\[.*\]\)", formula["Expression"])
    assert {f["MetricStat"]["Stat"] for f in figures} == {"p99"}


def test_a_callers_refusals_are_counted_from_the_audit_records_of_both_doors(stack: Stack) -> None:
    rule = json.loads(stack.properties("CallerRefusedRule")["RuleBody"])
    assert rule["Schema"] == {"Name": "CloudWatchLogRule", "Version": 1}
    assert (rule["LogFormat"], rule["AggregateOn"]) == ("JSON", "Count")
    assert rule["LogGroupNames"] == ["<VendLogs>", "<ApiLogs>"]
    lines: list[str] = []
    for outcome in ("refused", "vended", "failed"):
        record = AuditRecord("r", "c", "vend", "invoke", caller=f"alias/{outcome}", outcome=outcome)
        AuditTrail(lines.append).write(record, now=0.0)
    filters = rule["Contribution"]["Filters"]
    counted = [
        member(json.loads(line), rule["Contribution"]["Keys"][0])
        for line in lines
        if all(member(json.loads(line), f["Match"]) in f["In"] for f in filters)
    ]
    assert counted == ["alias/refused"]
    assert len(rule["Contribution"]["Keys"]) == 1


def member(record: dict[str, Any], path: str) -> object:
    """What `$.name` means."""
    assert path.startswith("$.")
    return record.get(path.removeprefix("$."))


def test_one_callers_refusals_ring_by_the_rules_largest_contributor(stack: Stack) -> None:
    (refused,) = stack.properties("CallerRefusedAlarm")["Metrics"]
    assert refused["Expression"] == 'INSIGHT_RULE_METRIC("<CallerRefusedRule.RuleName>", "MaxContributorValue")'
    # The probe's own request as nobody, once in 15 minutes, must stay far below.
    assert int(stack.properties("CallerRefusedAlarm")["Threshold"]) > refused["Period"] / 900 + 1


def test_the_probe_is_started_each_quarter_of_an_hour_for_all_and_never_tried_again(stack: Stack) -> None:
    (schedule,) = (
        s
        for s in stack.of_type("AWS::Scheduler::Schedule").values()
        if s["Target"]["Arn"] == "<ProbeFunctionAliaslive>"
    )
    assert schedule["ScheduleExpression"] == "rate(15 minutes)"
    assert schedule["Target"]["RoleArn"] == "<ScheduleRole.Arn>"
    assert schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 0
    event = json.loads((ROOT / "events/probe_all.json").read_text("utf-8"))
    assert json.loads(schedule["Target"]["Input"]) == event == {}
    (setting,) = (
        s for s in stack.of_type("AWS::Lambda::EventInvokeConfig").values() if s["FunctionName"] == "<ProbeFunction>"
    )
    assert setting["MaximumRetryAttempts"] == 0
    assert int(stack.properties("ProbeFunction")["Timeout"]) <= 900


def test_nobody_is_the_alias_that_no_policy_names(stack: Stack) -> None:
    assert stack.properties("ProbeFunction")["Environment"]["Variables"]["VEND_AS_NOBODY"] == "<VendFunctionAliaslive>"
    for path in (ROOT / "layers/access_policy/access_policy").glob("*.cedar"):
        assert "alias/live" not in path.read_text("utf-8")


def test_no_alarm_of_the_probe_stops_a_deployment(stack: Stack) -> None:
    ours = {
        "CredentialUnhealthyAlarm", "KeyTooOldAlarm", "StrangerServedAlarm", "ProbeSilentAlarm", "SecretsUnreadableAlarm", "CallerRefusedAlarm",
    }  # fmt: skip
    named = {
        alarm["Name"].strip("<>")
        for group in stack.of_type("AWS::CodeDeploy::DeploymentGroup").values()
        for alarm in group["AlarmConfiguration"]["Alarms"]
    }
    assert not ours & named
