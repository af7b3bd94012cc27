"""The functions of template.yaml, how new versions reach their callers, and what watches them."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import vending.errors  # noqa: F401 - so that every error class is there
from imburse_auth.errors import VendingError
from tests.stack import ROOT, Stack, deploy, template, template_text

FUNCTIONS = ("VendFunction", "ApiFunction", "RefillFunction", "AccessReportFunction", "ProbeFunction", "RotateFunction")
ON_THE_TABLE = ("VendFunction", "ApiFunction", "RefillFunction", "ProbeFunction", "RotateFunction")
# The report runs once a day: a canary of it would meet nobody. Pools bridge a refill that fails, and it has its alarm.
SHIFTED = ("VendFunction", "ApiFunction")
RESERVED = {"AccessReportFunction": 1, "RefillFunction": 5, "ProbeFunction": 2, "RotateFunction": 3}
IMBURSE = "sandbox=https://sandbox-api.imbursepayments.com,production=https://api.imbursepayments.com"
POOL_ALARMS = ("PoolEmptyAlarm", "FallbackRateAlarm", "RefillFailingAlarm", "TableUnavailableAlarm")
POOL_METRICS = ("PoolHit", "PoolMiss", "PoolUnavailable", "BudgetUnavailable", "BrakeUnavailable", "RefillFailed")
PROBE_METRICS = ("UnhealthyInARow", "KeyAgeDays", "StrangerRefused", "SecretsUnreadable")
POLICIES = sorted((ROOT / "layers/access_policy/access_policy").glob("*.cedar"))


@pytest.fixture(scope="module")
def stack() -> Stack:
    return deploy()


def aliases(stack: Stack, function: str) -> dict[str, dict[str, Any]]:
    """Alias name to its resource, properties and all."""
    return {
        resource["Properties"]["Name"]: dict(resource)
        for resource in stack.resources.values()
        if resource["Type"] == "AWS::Lambda::Alias" and resource["Properties"]["FunctionName"] == f"<{function}>"
    }


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        yield str(key), item
        yield from members(item)


def test_there_are_these_functions(stack: Stack) -> None:
    assert set(stack.of_type("AWS::Lambda::Function")) == set(FUNCTIONS)


@pytest.mark.parametrize("function", FUNCTIONS)
class TestAFunction:
    def test_starts_from_a_snapshot_on_the_runtime_that_is_tested(self, stack: Stack, function: str) -> None:
        properties = stack.properties(function)
        assert properties["SnapStart"] == {"ApplyOn": "PublishedVersions"}
        assert properties["Runtime"] == "python3.13"
        assert properties["TracingConfig"] == {"Mode": "Active"}

    @pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
    def test_runs_on_the_architecture_that_the_parameter_names(self, function: str, architecture: str) -> None:
        stack = deploy(Architecture=architecture)
        assert stack.properties(function)["Architectures"] == [architecture]
        (layer,) = (p for n, p in stack.of_type("AWS::Lambda::LayerVersion").items() if n.startswith("ImburseAuth"))
        assert layer["CompatibleArchitectures"] == [architecture]

    def test_has_a_handler_that_exists(self, stack: Stack, function: str) -> None:
        module, name = stack.properties(function)["Handler"].rsplit(".", 1)
        tree = ast.parse((ROOT / "functions" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    def test_writes_text_to_a_kept_and_encrypted_log_of_its_own(self, stack: Stack, function: str) -> None:
        logging = stack.properties(function)["LoggingConfig"]
        assert logging["LogFormat"] == "Text"
        assert [stack.properties(other)["LoggingConfig"] for other in FUNCTIONS].count(logging) == 1
        assert stack.named(logging["LogGroup"])["KmsKeyId"] == "<VendingKey.Arn>"
        assert int(stack.named(logging["LogGroup"])["RetentionInDays"]) >= 365

    def test_is_told_everything_that_it_insists_on(self, stack: Stack, function: str) -> None:
        required = re.compile(r'required\(environ, "(\w+)"\)')
        more = {
            "AccessReportFunction": ["report.py"],
            "ProbeFunction": ["probing.py"],
            "RotateFunction": ["rotating.py"],
        }
        files = ["config.py", *more.get(function, [])]
        names = {n for f in files for n in required.findall((ROOT / "functions/vending" / f).read_text("utf-8"))}
        assert names
        assert names <= set(stack.properties(function)["Environment"]["Variables"])

    def test_is_published_anew_when_only_a_policy_changes(self, stack: Stack, function: str) -> None:
        changed = deploy(policy_layer="s3://bucket/another-policy")
        version = aliases(stack, function)["live"]["Properties"]["FunctionVersion"]
        assert aliases(changed, function)["live"]["Properties"]["FunctionVersion"] != version

    def test_is_published_anew_when_only_the_hosts_change(self, stack: Stack, function: str) -> None:
        hosts = "sandbox=https://sandbox.imburse.example"
        for deployed, expected in ((stack, IMBURSE), (deploy(ImburseHosts=hosts), hosts)):
            version = deployed.named(aliases(deployed, function)["live"]["Properties"]["FunctionVersion"])
            assert deployed.properties(function)["Environment"]["Variables"]["IMBURSE_HOSTS"] == expected
            # CloudFormation replaces a version whose description changes: the property is create-only.
            assert version["Description"].split()[-1] == expected

    def test_is_kept_room_for_only_if_asked(self, stack: Stack, function: str) -> None:
        assert "ReservedConcurrentExecutions" not in stack.properties(function)
        reserved = deploy(ReservedConcurrency="50").properties(function)["ReservedConcurrentExecutions"]
        assert int(reserved) == RESERVED.get(function, 50)


def test_no_log_is_filtered_by_level(stack: Stack) -> None:
    assert not [
        key for key, _value in members(dict(stack.resources)) if key in {"ApplicationLogLevel", "SystemLogLevel"}
    ]


def test_every_log_group_is_encrypted_and_outlives_the_stack(stack: Stack) -> None:
    groups = {name: r for name, r in stack.resources.items() if r["Type"] == "AWS::Logs::LogGroup"}
    assert set(groups) == {
        "VendLogs",
        "ApiLogs",
        "RefillLogs",
        "AccessReportLogs",
        "ProbeLogs",
        "RotateLogs",
        "AccessLogs",
    }
    for group in groups.values():
        assert group["Properties"]["KmsKeyId"] == "<VendingKey.Arn>"
        assert group["DeletionPolicy"] == group["UpdateReplacePolicy"] == "Retain"


class TestCallers:
    def test_every_alias_that_a_policy_names_exists_and_the_reverse(self, stack: Stack) -> None:
        named = {alias for p in POLICIES for alias in re.findall(r'Caller::"alias/([^"]+)"', p.read_text("utf-8"))}
        assert set(aliases(stack, "VendFunction")) - {"live"} == named

    def test_every_stage_has_a_policy_and_the_reverse(self) -> None:
        stages = template()["Parameters"]["Stage"]["AllowedValues"]
        assert sorted(stages) == [path.stem for path in POLICIES]
        for stage in stages:
            variables = deploy(Stage=stage).properties("VendFunction")["Environment"]["Variables"]
            assert variables["ACCESS_POLICY"] == f"/opt/access_policy/{stage}.cedar"
            assert variables["STAGE"] == stage

    @pytest.mark.parametrize("function", SHIFTED)
    def test_every_alias_points_at_the_version_that_is_deployed(self, stack: Stack, function: str) -> None:
        (version,) = {alias["Properties"]["FunctionVersion"] for alias in aliases(stack, function).values()}
        assert stack.named(version)["FunctionName"] == f"<{function}>"
        assert version.endswith(".Version>")

    @pytest.mark.parametrize("function", SHIFTED)
    @pytest.mark.parametrize("how", ["AllAtOnce", "Canary10Percent5Minutes"])
    def test_every_alias_moves_by_a_deployment_of_its_own_that_alarms_stop(self, function: str, how: str) -> None:
        stack = deploy(DeploymentType=how)
        policies = [alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"] for alias in aliases(stack, function).values()]
        groups = [policy["DeploymentGroupName"] for policy in policies]
        assert len(set(groups)) == len(groups)
        for policy, group in zip(policies, map(stack.named, groups), strict=True):
            assert policy["ApplicationName"] == group["ApplicationName"] == "<ServerlessDeploymentApplication>"
            assert group["DeploymentConfigName"] == f"CodeDeployDefault.Lambda{how}"
            assert group["ServiceRoleArn"] == "<DeploymentRole.Arn>"
            assert group["DeploymentStyle"]["DeploymentOption"] == "WITH_TRAFFIC_CONTROL"
            assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
            alarms = [alarm["Name"].strip("<>") for alarm in group["AlarmConfiguration"]["Alarms"]]
            assert group["AlarmConfiguration"]["Enabled"] is True
            assert alarms
            assert set(alarms) <= set(stack.of_type("AWS::CloudWatch::Alarm"))

    @pytest.mark.parametrize("caller", ["SettlementJob", "AccessReport"])
    def test_a_callers_deployment_is_stopped_by_errors_of_the_new_version_through_its_alias(
        self, stack: Stack, caller: str
    ) -> None:
        alias = stack.properties(f"{caller}Caller")
        group = stack.properties(f"{caller}DeploymentGroup")
        assert {"Name": f"<{caller}NewVersionAlarm>"} in group["AlarmConfiguration"]["Alarms"]
        assert stack.properties(f"{caller}NewVersionAlarm")["Dimensions"] == [
            {"Name": "FunctionName", "Value": "<VendFunction>"},
            {"Name": "Resource", "Value": f"<VendFunction>:{alias['Name']}"},
            {"Name": "ExecutedVersion", "Value": alias["FunctionVersion"]},
        ]

    def test_the_report_vends_through_the_alias_that_is_its_own(self, stack: Stack) -> None:
        variables = stack.properties("AccessReportFunction")["Environment"]["Variables"]
        assert variables["VEND_FUNCTION"] == "<AccessReportCaller>"
        assert stack.properties("AccessReportCaller")["Name"] == "access-report"

    def test_the_report_is_run_daily_through_its_alias_with_the_event_that_the_tests_use(self, stack: Stack) -> None:
        schedule = schedule_of(stack, "AccessReportFunction")
        assert re.fullmatch(r"cron\(\d+ \d+ \* \* \? \*\)", schedule["ScheduleExpression"])
        assert schedule["Target"]["Arn"] == "<AccessReportFunctionAliaslive>"
        assert schedule["Target"]["RoleArn"] == "<ScheduleRole.Arn>"
        event = json.loads((ROOT / "events/access_report.json").read_text("utf-8"))
        assert json.loads(schedule["Target"]["Input"]) == event


def schedule_of(stack: Stack, function: str) -> Mapping[str, Any]:
    """The one schedule that starts a function, by its live alias."""
    (schedule,) = (
        s for s in stack.of_type("AWS::Scheduler::Schedule").values() if s["Target"]["Arn"] == f"<{function}Aliaslive>"
    )
    return schedule


class TestTheTable:
    @pytest.fixture
    def table(self, stack: Stack) -> Mapping[str, Any]:
        (table,) = stack.of_type("AWS::DynamoDB::Table").values()
        return table

    def test_has_the_keys_and_the_end_of_life_that_the_code_writes(self, table: Mapping[str, Any]) -> None:
        assert table["KeySchema"] == [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ]
        assert {a["AttributeName"]: a["AttributeType"] for a in table["AttributeDefinitions"]} == {"pk": "S", "sk": "S"}
        assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
        assert table["BillingMode"] == "PAY_PER_REQUEST"

    def test_is_encrypted_with_our_key(self, table: Mapping[str, Any]) -> None:
        assert table["SSESpecification"] == {
            "SSEEnabled": True,
            "SSEType": "KMS",
            "KMSMasterKeyId": "<VendingKey.Arn>",
        }

    def test_keeps_no_copy_of_a_token_that_outlives_it(self, stack: Stack, table: Mapping[str, Any]) -> None:
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": False}
        copies = {
            "StreamSpecification",
            "KinesisStreamSpecification",
            "GlobalSecondaryIndexes",
            "ImportSourceSpecification",
        }
        assert not copies & set(table)
        resource = stack.resources["VendingTable"]
        assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Delete"

    def test_is_not_backed_up_for_a_reason_that_is_written_beside_it(self) -> None:
        assert re.search(r"VendingTable:\n.*\n\s+# checkov:skip=CKV_AWS_28:.{40,}\n", template_text())

    def test_is_known_to_the_functions_that_use_it_and_the_refill_to_those_that_wake_it(self, stack: Stack) -> None:
        for function in FUNCTIONS:
            variables = stack.properties(function)["Environment"]["Variables"]
            assert variables.get("VENDING_TABLE") == ("<VendingTable>" if function in ON_THE_TABLE else None)
            wakes = function in SHIFTED
            assert variables.get("REFILL_FUNCTION") == ("<RefillFunctionAliaslive>" if wakes else None)
        assert stack.outputs["TableName"] == "<VendingTable>"


class TestTheRefill:
    def test_is_started_each_minute_for_all_credentials_and_a_missed_minute_is_let_go(self, stack: Stack) -> None:
        schedule = schedule_of(stack, "RefillFunction")
        assert schedule["ScheduleExpression"] == "rate(1 minute)"
        assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
        assert schedule["Target"]["RoleArn"] == "<ScheduleRole.Arn>"
        assert schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 0
        assert json.loads(schedule["Target"]["Input"]) == json.loads(
            (ROOT / "events/refill_all.json").read_text("utf-8")
        )

    def test_is_never_tried_again_by_lambda_which_would_only_hammer_a_troubled_imburse(self, stack: Stack) -> None:
        (setting,) = (
            s
            for s in stack.of_type("AWS::Lambda::EventInvokeConfig").values()
            if s["FunctionName"] == "<RefillFunction>"
        )
        assert (setting["MaximumRetryAttempts"], setting["MaximumEventAgeInSeconds"]) == (0, 60)

    def test_ends_before_the_next_one_of_the_schedule_is_retried(self, stack: Stack) -> None:
        assert int(stack.properties("RefillFunction")["Timeout"]) <= 60


class TestRotation:
    def test_is_started_each_hour_and_by_secrets_manager_for_secrets_of_this_account_alone(self, stack: Stack) -> None:
        schedule = schedule_of(stack, "RotateFunction")
        assert schedule["ScheduleExpression"] == "rate(1 hour)"
        event = json.loads((ROOT / "events/rotate_sweep.json").read_text("utf-8"))
        assert json.loads(schedule["Target"]["Input"]) == event
        (permission,) = (
            p
            for p in stack.of_type("AWS::Lambda::Permission").values()
            if p["Principal"] == "secretsmanager.amazonaws.com"
        )
        assert permission == {
            "FunctionName": "<RotateFunctionAliaslive>",
            "Action": "lambda:InvokeFunction",
            "Principal": "secretsmanager.amazonaws.com",
            "SourceAccount": "123456789012",
        }

    def test_deletes_nothing_unless_it_is_told_to_and_then_not_before_nobody_can_hold_the_key(
        self, stack: Stack
    ) -> None:
        variables = stack.properties("RotateFunction")["Environment"]["Variables"]
        assert variables["DELETE_ROTATED_KEYS"] == "false"
        parameter = template()["Parameters"]["RotationGraceSeconds"]
        cached_seconds, token_seconds = 300, 1800
        assert int(variables["ROTATION_GRACE_SECONDS"]) >= parameter["MinValue"] > cached_seconds + token_seconds

    @pytest.mark.parametrize(("parameter", "value"), [("DeleteRotatedKeys", "true"), ("RotationGraceSeconds", "7200")])
    def test_is_published_anew_when_its_settings_change(self, stack: Stack, parameter: str, value: str) -> None:
        descriptions = [
            deployed.named(aliases(deployed, "RotateFunction")["live"]["Properties"]["FunctionVersion"])["Description"]
            for deployed in (stack, deploy(**{parameter: value}))
        ]
        assert descriptions[0] != descriptions[1]

    def test_has_room_for_its_settings_in_a_versions_description(self) -> None:
        parameters = template()["Parameters"]
        longest = parameters["ImburseHosts"]["MaxLength"] + len(
            f"false {parameters['RotationGraceSeconds']['MaxValue']} "
        )
        assert longest <= 256

    def test_has_an_alarm_for_its_errors(self, stack: Stack) -> None:
        alarm = stack.properties("RotateErrorsAlarm")
        assert (alarm["Namespace"], alarm["MetricName"], int(alarm["Threshold"])) == ("AWS/Lambda", "Errors", 1)
        assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": "<RotateFunction>"}]


class TestAlarms:
    def test_tell_the_topic_if_there_is_one(self, stack: Stack) -> None:
        topic = "arn:aws:sns:eu-west-1:123456789012:alarms"
        told = deploy(AlarmTopicArn=topic).of_type("AWS::CloudWatch::Alarm")
        assert told
        assert all(a["AlarmActions"] == a["OKActions"] == [topic] for a in told.values())
        assert not any("AlarmActions" in a for a in stack.of_type("AWS::CloudWatch::Alarm").values())

    def test_watch_metrics_that_the_functions_emit(self, stack: Stack) -> None:
        services = {stack.properties(f)["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] for f in FUNCTIONS}
        codes = {error.code for error in VendingError.__subclasses__()}
        source = (ROOT / "functions/vending/record/metrics.py").read_text("utf-8")
        ours = [m for _key, m in members(dict(stack.of_type("AWS::CloudWatch::Alarm"))) if is_our_metric(m)]
        watched = {"RequestsRefused", "TokensFailed", "ExchangeLatency", *POOL_METRICS, *PROBE_METRICS}
        assert {m["MetricName"] for m in ours} == watched
        for metric in ours:
            dimensions = {d["Name"]: d["Value"] for d in metric["Dimensions"]}
            assert f'"{metric["MetricName"]}"' in source
            assert set(dimensions) in ({"service"}, {"service", "code"})
            assert dimensions["service"] in services
            assert dimensions.get("code", "not_authorized") in codes

    @pytest.mark.parametrize("alarm", ["RefusalsAlarm", *POOL_ALARMS])
    def test_do_not_let_what_fails_no_vend_hold_back_a_deployment_for_all(self, stack: Stack, alarm: str) -> None:
        assert alarm in stack.resources
        groups = stack.of_type("AWS::CodeDeploy::DeploymentGroup").values()
        assert not [g for g in groups if {"Name": f"<{alarm}>"} in g["AlarmConfiguration"]["Alarms"]]

    @pytest.mark.parametrize("alarm", POOL_ALARMS)
    def test_each_looks_at_every_figure_that_it_asks_for(self, stack: Stack, alarm: str) -> None:
        (formula, *figures) = stack.properties(alarm)["Metrics"]
        assert set(re.findall(r"FILL\((\w+), 0\)", formula["Expression"])) == {figure["Id"] for figure in figures}
        assert all(figure["ReturnData"] is False for figure in figures)
        assert len({figure["MetricStat"]["Period"] for figure in figures}) == 1
        assert len(figures) < 10  # as many as CloudWatch takes in one alarm, the formula among them

    @pytest.mark.parametrize(
        ("hits", "misses", "rung"),
        [(0, 0, False), (0, 49, False), (0, 50, True), (80, 20, False), (79, 21, True), (1000, 100, False)],
    )
    def test_the_fallback_rate_rings_at_more_than_a_fifth_of_enough(
        self, stack: Stack, hits: int, misses: int, rung: bool
    ) -> None:
        alarm = stack.properties("FallbackRateAlarm")
        found = re.fullmatch(r"IF\((.*), (100 .*), (0)\)", alarm["Metrics"][0]["Expression"])
        assert found is not None
        condition, formula, otherwise = found.groups()
        values = {"hit_vend": hits, "hit_api": 0, "miss_vend": 0, "miss_api": misses, "FILL": lambda value, _: value}
        percent = eval(formula if eval(condition, {}, values) else otherwise, {}, values)
        assert (percent > int(alarm["Threshold"])) is rung
        assert alarm["ComparisonOperator"] == "GreaterThanThreshold"

    def test_take_every_refusal_that_the_caller_caused_off_the_faults(self, stack: Stack) -> None:
        metrics = {m["Id"]: m for m in stack.properties("VendFaultsAlarm")["Metrics"]}
        caused = {e.code for e in VendingError.__subclasses__() if e.status in {400, 403, 404, 429}}
        taken_off = {
            d["Value"]
            for name, m in metrics.items()
            if f"- FILL({name}, 0)" in metrics["faults"]["Expression"]
            for d in m["MetricStat"]["Metric"]["Dimensions"]
            if d["Name"] == "code"
        }
        assert taken_off == caused


def is_our_metric(value: object) -> bool:
    return isinstance(value, dict) and value.get("Namespace") == "ImburseVending" and "Dimensions" in value


class TestStages:
    @pytest.fixture
    def stages(self) -> dict[str, Any]:
        config = tomllib.loads((ROOT / "samconfig.toml").read_text("utf-8"))
        return {name: stage["deploy"]["parameters"] for name, stage in config.items() if name != "version"}

    def test_each_deploys_a_stack_of_its_own_with_parameters_that_the_template_takes(
        self, stages: dict[str, Any]
    ) -> None:
        declared = template()["Parameters"]
        assert set(stages) == set(declared["Stage"]["AllowedValues"])
        for name, stage in stages.items():
            overrides = dict(override.split("=", 1) for override in stage["parameter_overrides"])
            assert stage["stack_name"] == f"imburse-vending-{name}"
            assert overrides["Stage"] == name
            for parameter, value in overrides.items():
                allowed = declared[parameter].get("AllowedValues", [value])
                assert value in map(str, allowed), parameter

    def test_production_asks_before_it_changes_and_moves_traffic_step_by_step(self, stages: dict[str, Any]) -> None:
        assert stages["production"]["confirm_changeset"] is True
        assert "DeploymentType=Canary10Percent5Minutes" in stages["production"]["parameter_overrides"]

    def test_none_names_an_account(self) -> None:
        assert not re.search(
            r"\b\d{12}\b|\bo-[a-z0-9]{10}|\bvpce-[0-9a-f]{8}", (ROOT / "samconfig.toml").read_text("utf-8")
        )
