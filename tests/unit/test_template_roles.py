"""Each role can do what its function calls, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name

from tests.stack import ACCOUNT, REGION, ROOT, Stack, deploy, judge, listed, template_text

FUNCTIONS = {
    "VendFunction": "handlers.vend",
    "ApiFunction": "handlers.api",
    "RefillFunction": "handlers.refill",
    "AccessReportFunction": "handlers.access_report",
    "ProbeFunction": "handlers.probe",
    "RotateFunction": "handlers.rotate",
}
SOURCES = (ROOT / "functions", ROOT / "layers/imburse_auth/src")

SECRETS = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:imburse/*"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:imburse/sandbox/tenant-a-AbCdEf"
KEY = "<VendingKey.Arn>"
THROUGH_SECRETS_MANAGER = {
    "kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com",
    "kms:EncryptionContext:SecretARN": SECRET,
    "kms:CallerAccount": ACCOUNT,
}
TABLE = "<VendingTable.Arn>"
THROUGH_DYNAMODB = {
    "kms:ViaService": f"dynamodb.{REGION}.amazonaws.com",
    "kms:EncryptionContext:aws:dynamodb:tableName": "<VendingTable>",
    "kms:CallerAccount": ACCOUNT,
}
TRACES = {("xray:PutTraceSegments", "*"), ("xray:PutTelemetryRecords", "*")}
READ_KEYS = {("secretsmanager:GetSecretValue", SECRETS), ("kms:Decrypt", KEY)}
ITEMS = ("GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")
USE_TABLE = {(f"dynamodb:{operation}", TABLE) for operation in ITEMS} | {("kms:Decrypt", KEY)}
COUNT = {(f"dynamodb:{operation}", TABLE) for operation in ("UpdateItem", "DeleteItem")} | {("kms:Decrypt", KEY)}
PROBES_ITEM = {"dynamodb:LeadingKeys": "probe"}
NOBODY = "<VendFunctionAliaslive>"
REFILL = "<RefillFunctionAliaslive>"
WAKE_REFILL = {("lambda:InvokeFunction", REFILL)}
ALIASES_TO_MOVE = {f"<{name}.Arn>{rest}" for name in ("VendFunction", "ApiFunction") for rest in ("", ":*")}


def log(group: str) -> set[tuple[str, str]]:
    return {("logs:CreateLogStream", f"<{group}.Arn>"), ("logs:PutLogEvents", f"<{group}.Arn>")}


WRITE_KEYS = ("DescribeSecret", "PutSecretValue", "UpdateSecretVersionStage")

# The whole of what is granted, by role. Whoever widens a role writes it down here too.
GRANTED = {
    "VendRole": READ_KEYS | USE_TABLE | WAKE_REFILL | TRACES | log("VendLogs"),
    "ApiRole": READ_KEYS | USE_TABLE | WAKE_REFILL | TRACES | log("ApiLogs"),
    "RefillRole": READ_KEYS | USE_TABLE | TRACES | log("RefillLogs") | {("secretsmanager:ListSecrets", "*")},
    "AccessReportRole": TRACES
    | log("AccessReportLogs")
    | {("lambda:InvokeFunction", "<AccessReportCaller>"), ("secretsmanager:ListSecrets", "*")},
    "ProbeRole": READ_KEYS
    | COUNT
    | TRACES
    | log("ProbeLogs")
    | {("secretsmanager:ListSecrets", "*"), ("lambda:InvokeFunction", NOBODY)},
    "RotateRole": READ_KEYS
    | USE_TABLE
    | TRACES
    | log("RotateLogs")
    | {(f"secretsmanager:{operation}", SECRETS) for operation in WRITE_KEYS}
    | {("kms:GenerateDataKey", KEY), ("secretsmanager:ListSecrets", "*")},
    "ScheduleRole": {("lambda:InvokeFunction", f"<{name}FunctionAliaslive>") for name in ("Probe", "Rotate")}
    | {("lambda:InvokeFunction", "<AccessReportFunctionAliaslive>")}
    | WAKE_REFILL,
    "DeploymentRole": {("cloudwatch:DescribeAlarms", "*")}
    | {
        (action, arn)
        for action in ("lambda:GetAlias", "lambda:UpdateAlias", "lambda:GetProvisionedConcurrencyConfig")
        for arn in ALIASES_TO_MOVE
    },
}
# What the code calls through boto3, found in the source below, and the resource that it names.
ON_THE_TABLE = {f"dynamodb:{operation}": TABLE for operation in ITEMS}
CALLS = {
    "VendFunction": {"secretsmanager:GetSecretValue": SECRET, "lambda:InvokeFunction": REFILL, **ON_THE_TABLE},
    "ApiFunction": {"secretsmanager:GetSecretValue": SECRET, "lambda:InvokeFunction": REFILL, **ON_THE_TABLE},
    "RefillFunction": {"secretsmanager:GetSecretValue": SECRET, "secretsmanager:ListSecrets": "*", **ON_THE_TABLE},
    "AccessReportFunction": {"secretsmanager:ListSecrets": "*", "lambda:InvokeFunction": "<AccessReportCaller>"},
}
CALLS["RotateFunction"] = {
    "secretsmanager:GetSecretValue": SECRET,
    "secretsmanager:ListSecrets": "*",
    **{f"secretsmanager:{operation}": SECRET for operation in WRITE_KEYS},
    **ON_THE_TABLE,
}
CALLS["ProbeFunction"] = {
    "secretsmanager:GetSecretValue": SECRET,
    "secretsmanager:ListSecrets": "*",
    "lambda:InvokeFunction": NOBODY,
    "dynamodb:UpdateItem": TABLE,
    "dynamodb:DeleteItem": TABLE,
}
# What stands in a module that a function shares with others, and what it never calls itself.
NEVER_CALLED = {"ProbeFunction": {f"dynamodb:{operation}" for operation in ("GetItem", "Query", "PutItem")}}
ACTION_OF = {"lambda:Invoke": "lambda:InvokeFunction"}  # the one operation whose permission has another name


@pytest.fixture(scope="module")
def stack() -> Stack:
    return deploy()


def role_of(stack: Stack, function: str) -> str:
    role: str = stack.properties(function)["Role"]
    return role.strip("<>").removesuffix(".Arn")


def trees(module: str) -> Iterator[ast.Module]:
    """The syntax trees of a module and of all our own modules that it imports."""
    waiting, seen = [module], set()
    while waiting:
        name = waiting.pop()
        path = next((p for root in SOURCES if (p := source_of(root, name)).is_file()), None)
        if name in seen or path is None:
            continue
        seen.add(name)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield tree
        waiting += [name[: match.start()] for match in re.finditer(r"\.", name)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{imported.name}" for imported in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [imported.name for imported in node.names]


def source_of(root: Path, name: str) -> Path:
    folder = root / name.replace(".", "/")
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def boto3_calls(module: str) -> set[str]:
    """The IAM actions of every AWS operation that the module, or what it imports of ours, calls by name."""
    calls = [node for tree in trees(module) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    methods = [(node.func.attr, first_text(node)) for node in calls if isinstance(node.func, ast.Attribute)]
    services = {text for name, text in methods if name == "client" and text}
    used = {name for name, _ in methods} | {text for name, text in methods if name in {"get_paginator", "get_waiter"}}
    session = botocore.session.Session()
    operations = {
        xform_name(operation): f"{service}:{operation}"
        for service in services
        for operation in session.get_service_model(service).operation_names
    }
    return {ACTION_OF.get(operations[name], operations[name]) for name in used if name in operations}


def first_text(call: ast.Call) -> str | None:
    first: Any = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
    return first if isinstance(first, str) else None


@pytest.mark.parametrize(("function", "module"), FUNCTIONS.items())
def test_the_table_of_calls_is_what_the_source_calls(function: str, module: str) -> None:
    assert boto3_calls(module) - NEVER_CALLED.get(function, set()) == set(CALLS[function])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_role_may_do_what_its_function_calls(stack: Stack, function: str) -> None:
    statements = stack.statements(role_of(stack, function))
    for action, resource in CALLS[function].items():
        assert judge(statements, action, resource, PROBES_ITEM) == "Allow", action


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_role_may_write_its_functions_log_and_traces(stack: Stack, function: str) -> None:
    statements = stack.statements(role_of(stack, function))
    group = stack.properties(function)["LoggingConfig"]["LogGroup"].strip("<>")
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        assert judge(statements, action, f"<{group}.Arn>") == "Allow"
    assert judge(statements, "xray:PutTraceSegments", "*") == "Allow"


def test_the_roles_are_those_written_down_here(stack: Stack) -> None:
    assert set(stack.of_type("AWS::IAM::Role")) == set(GRANTED)
    assert {role_of(stack, name) for name in FUNCTIONS} == {
        "VendRole",
        "ApiRole",
        "RefillRole",
        "AccessReportRole",
        "ProbeRole",
        "RotateRole",
    }


@pytest.mark.parametrize("role", GRANTED)
def test_a_role_may_do_nothing_that_is_not_written_down_here(stack: Stack, role: str) -> None:
    granted = {
        (action, resource)
        for statement in stack.statements(role)
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    }
    assert granted == GRANTED[role]
    assert all(s["Effect"] == "Allow" and not {"NotAction", "NotResource"} & set(s) for s in stack.statements(role))


@pytest.mark.parametrize("role", GRANTED)
def test_a_role_is_taken_by_its_own_service_alone(stack: Stack, role: str) -> None:
    (statement,) = stack.properties(role)["AssumeRolePolicyDocument"]["Statement"]
    service = {"ScheduleRole": "scheduler", "DeploymentRole": "codedeploy"}.get(role, "lambda")
    assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}
    assert statement["Action"] == "sts:AssumeRole"


def test_the_scheduler_takes_its_role_for_schedules_of_this_account_alone(stack: Stack) -> None:
    (statement,) = stack.properties("ScheduleRole")["AssumeRolePolicyDocument"]["Statement"]
    group = f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/default"
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": group}}


@pytest.mark.parametrize(
    "function", ["VendFunction", "ApiFunction", "RefillFunction", "ProbeFunction", "RotateFunction"]
)
def test_the_table_is_decrypted_through_dynamodb_alone(stack: Stack, function: str) -> None:
    statements = stack.statements(role_of(stack, function))
    assert judge(statements, "kms:Decrypt", KEY, THROUGH_DYNAMODB) == "Allow"
    other = THROUGH_DYNAMODB | {"kms:EncryptionContext:aws:dynamodb:tableName": "payroll"}
    assert judge(statements, "kms:Decrypt", KEY, other) == "silent"


@pytest.mark.parametrize("role", GRANTED)
def test_nobody_here_may_read_the_table_as_a_whole_or_change_it(stack: Stack, role: str) -> None:
    for action in ("Scan", "BatchGetItem", "PartiQLSelect", "ExportTableToPointInTime", "CreateBackup", "UpdateTable"):
        assert judge(stack.statements(role), f"dynamodb:{action}", TABLE) == "silent"


@pytest.mark.parametrize(
    "function", ["VendFunction", "ApiFunction", "RefillFunction", "ProbeFunction", "RotateFunction"]
)
def test_a_key_is_decrypted_through_secrets_manager_alone(stack: Stack, function: str) -> None:
    statements = stack.statements(role_of(stack, function))
    assert judge(statements, "kms:Decrypt", KEY, THROUGH_SECRETS_MANAGER) == "Allow"
    assert judge(statements, "kms:Decrypt", KEY) == "silent"
    other = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:payroll-AbCdEf"
    elsewhere = THROUGH_SECRETS_MANAGER | {"kms:EncryptionContext:SecretARN": other}
    assert judge(statements, "kms:Decrypt", KEY, elsewhere) == "silent"
    assert judge(statements, "secretsmanager:GetSecretValue", other) == "silent"


def test_one_role_alone_may_write_a_secret_and_encrypts_through_secrets_manager_alone(stack: Stack) -> None:
    for operation in ("PutSecretValue", "UpdateSecretVersionStage"):
        action = f"secretsmanager:{operation}"
        assert {r for r in GRANTED if judge(stack.statements(r), action, SECRET) == "Allow"} == {"RotateRole"}
        assert judge(stack.statements("RotateRole"), action, SECRET.replace("imburse/", "payroll/")) == "silent"
    statements = stack.statements("RotateRole")
    assert judge(statements, "kms:GenerateDataKey", KEY, THROUGH_SECRETS_MANAGER) == "Allow"
    assert judge(statements, "kms:GenerateDataKey", KEY) == "silent"
    for operation in ("DeleteSecret", "CreateSecret", "UpdateSecret", "RestoreSecret", "RotateSecret"):
        assert judge(statements, f"secretsmanager:{operation}", SECRET) == "silent"


def test_nobody_here_may_invoke_the_function_that_believes_api_gateway(stack: Stack) -> None:
    for role in GRANTED:
        for target in ("<ApiFunction.Arn>", "<ApiFunctionAliaslive>", "<ApiFunction.Arn>:live"):
            assert judge(stack.statements(role), "lambda:InvokeFunction", target) == "silent"


def test_the_probe_may_count_in_its_own_items_and_reads_and_writes_no_token(stack: Stack) -> None:
    statements = stack.statements("ProbeRole")
    for partition in ("pool#sandbox/tenant-a", "shared#sandbox/tenant-a", "brake", "budget"):
        for operation in ITEMS:
            context = {"dynamodb:LeadingKeys": partition}
            assert judge(statements, f"dynamodb:{operation}", TABLE, context) == "silent", operation
    for operation in ("GetItem", "Query", "PutItem"):
        assert judge(statements, f"dynamodb:{operation}", TABLE, PROBES_ITEM) == "silent"


def test_rotations_notes_which_have_keys_deleted_are_for_rotate_alone(stack: Stack) -> None:
    notes = {"dynamodb:LeadingKeys": "rotation"}
    for operation in ITEMS:
        may = {r for r in GRANTED if judge(stack.statements(r), f"dynamodb:{operation}", TABLE, notes) == "Allow"}
        assert may == {"RotateRole"}, operation


def test_only_the_probe_may_ask_vend_as_nobody_and_it_may_ask_as_nobody_else(stack: Stack) -> None:
    may = {role for role in GRANTED if judge(stack.statements(role), "lambda:InvokeFunction", NOBODY) == "Allow"}
    assert may == {"ProbeRole"}
    for alias in ("<SettlementJobCaller>", "<AccessReportCaller>", "<VendFunction.Arn>"):
        assert judge(stack.statements("ProbeRole"), "lambda:InvokeFunction", alias) == "silent"


def test_any_resource_is_granted_with_a_written_reason_alone() -> None:
    lines = [line.strip() for line in template_text().splitlines()]
    wide = [number for number, line in enumerate(lines) if re.search(r"""\bResource:.*["'\s\[]\*""", line)]
    assert wide, "the pattern finds what it should"
    for number in wide:
        assert re.fullmatch(r"# any resource: .{20,}", lines[number - 1]), f"line {number + 1} gives no reason"


def test_every_grant_of_any_resource_is_written_the_way_that_is_looked_for(stack: Stack) -> None:
    documents = [policy["PolicyDocument"] for policy in stack.of_type("AWS::IAM::ManagedPolicy").values()]
    documents += [p["PolicyDocument"] for role in stack.of_type("AWS::IAM::Role").values() for p in role["Policies"]]
    documents += [key["KeyPolicy"] for key in stack.of_type("AWS::KMS::Key").values()]
    wide = [s for document in documents for s in document["Statement"] if "*" in listed(s["Resource"])]
    assert len(wide) == template_text().count("# any resource: ") > 0


class TestTheKey:
    @pytest.fixture
    def policy(self, stack: Stack) -> list[dict[str, Any]]:
        statements: list[dict[str, Any]] = stack.properties("VendingKey")["KeyPolicy"]["Statement"]
        return statements

    def test_may_be_used_through_secrets_manager_and_not_otherwise(self, policy: list[dict[str, Any]]) -> None:
        for action in ("kms:Decrypt", "kms:GenerateDataKey"):
            assert judge(policy, action, KEY, THROUGH_SECRETS_MANAGER) == "Allow"
            assert judge(policy, action, KEY, {"kms:CallerAccount": ACCOUNT}) == "silent"
            stranger = THROUGH_SECRETS_MANAGER | {"kms:CallerAccount": "210987654321"}
            assert judge(policy, action, KEY, stranger) == "silent"

    def test_passes_the_trial_that_secrets_manager_makes_before_it_keeps_a_secret(
        self, policy: list[dict[str, Any]]
    ) -> None:
        trial = THROUGH_SECRETS_MANAGER | {"kms:EncryptionContext:SecretARN": "RequestToValidateKeyAccess"}
        assert judge(policy, "kms:Decrypt", KEY, trial) == "Allow"

    def test_keeps_tables_through_dynamodb_for_this_account_and_not_otherwise(
        self, policy: list[dict[str, Any]]
    ) -> None:
        for action in ("kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:CreateGrant"):
            assert judge(policy, action, KEY, THROUGH_DYNAMODB) == "Allow"
            assert judge(policy, action, KEY, {"kms:CallerAccount": ACCOUNT}) == "silent"
            stranger = THROUGH_DYNAMODB | {"kms:CallerAccount": "210987654321"}
            assert judge(policy, action, KEY, stranger) == "silent"

    def test_encrypts_the_logs_of_this_stack_and_no_others(self, policy: list[dict[str, Any]]) -> None:
        (statement,) = (s for s in policy if "Service" in s["Principal"])
        assert statement["Principal"] == {"Service": f"logs.{REGION}.amazonaws.com"}
        prefix = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
        for group, judgement in (("imburse-vending-dev-VendLogs-0", "Allow"), ("payroll", "silent")):
            context = {"kms:EncryptionContext:aws:logs:arn": f"{prefix}:{group}"}
            assert judge([statement], "kms:GenerateDataKey", KEY, context) == judgement

    def test_is_administered_by_who_may_not_use_it(self, policy: list[dict[str, Any]]) -> None:
        (administration,) = (s for s in policy if "Condition" not in s)
        assert administration["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
        uses = {"Decrypt", "Encrypt", "GenerateDataKey", "ReEncryptFrom", "CreateGrant"}
        assert not [a for a in administration["Action"] if "*" in a or a.removeprefix("kms:") in uses]

    def test_is_rotated_and_outlives_the_stack(self, stack: Stack) -> None:
        assert stack.properties("VendingKey")["EnableKeyRotation"] is True
        key = stack.resources["VendingKey"]
        assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Retain"
