"""local/template.py on small templates: what the local stack runs is what the template says."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from local.template import Application, Route, ScheduleSpec, TableSpec, TemplateError, read_application

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:"

HEAD = """
    Transform: AWS::Serverless-2016-10-31
    Parameters:
      Stage: {Type: String, Default: dev}
      Hosts: {Type: String, Default: "sandbox=https://sandbox.example.com"}
      Endpoints: {Type: CommaDelimitedList, Default: "first, second"}
      NoDefault: {Type: String}
    Conditions:
      IsDev: !Equals [!Ref Stage, dev]
      IsBusy: !And [!Condition IsDev, !Not [!Or [!Equals [a, b], !Equals [a, c]]]]
    Mappings:
      Sizes:
        dev: {Memory: 256}
        production: {Memory: 2048}
    Globals:
      Function:
        CodeUri: functions
        Runtime: python3.13
        Timeout: 7
        AutoPublishAlias: live
        Environment: {Variables: {STAGE: !Ref Stage}}
    Resources:
"""

Read = Callable[..., Application]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_text(resources: str, **parameters: str) -> Application:
        path = tmp_path / "template.yaml"
        path.write_text(textwrap.dedent(HEAD) + textwrap.indent(textwrap.dedent(resources), "  "))
        return read_application(path, parameters, stack_name="stack", region="eu-west-1", account_id="123456789012")

    return read_text


def function(variables: str = "{}", more: str = "") -> str:
    return f"""
        VendFunction:
          Type: AWS::Serverless::Function
          Properties:
            FunctionName: !Sub ${{AWS::StackName}}-vend
            Handler: handlers.vend.handler
            Environment: {{Variables: {variables}}}
            {more}
    """


def test_globals_and_own_properties_are_merged(read: Read) -> None:
    spec = read(function("{OWN: x}", "MemorySize: !FindInMap [Sizes, !Ref Stage, Memory]")).functions["VendFunction"]
    assert (spec.name, spec.handler, spec.timeout_seconds, spec.memory_mb) == (
        "stack-vend",
        "handlers.vend.handler",
        7,
        256,
    )
    assert spec.environment == {"STAGE": "dev", "OWN": "x"}
    assert spec.aliases == ("live",)


def test_a_function_without_a_name_or_limits_gets_defaults(read: Read) -> None:
    spec = read("""
        Plain:
          Type: AWS::Lambda::Function
          Properties: {Handler: a.b, Runtime: python3.13, Code: {S3Bucket: b, S3Key: k}}
    """).functions["Plain"]
    assert (spec.name, spec.timeout_seconds, spec.memory_mb, spec.aliases) == ("stack-Plain", 3, 128, ())


def test_parameters_override_defaults(read: Read) -> None:
    spec = read(function("{HOSTS: !Ref Hosts}"), Stage="production", Hosts="own=http://127.0.0.1:9").functions[
        "VendFunction"
    ]
    assert spec.environment == {"STAGE": "production", "HOSTS": "own=http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('!Sub "/opt/access_policy/${Stage}.cedar"', "/opt/access_policy/dev.cedar"),
        ('!Sub ["${a}-${!b}-${AWS::Region}", {a: !Ref Stage}]', "dev-${b}-eu-west-1"),
        ("!If [IsDev, yes please, no]", "yes please"),
        ("!If [IsBusy, !Select [1, !Ref Endpoints], none]", "second"),
        ('!Join ["+", !Ref Endpoints]', "first+second"),
        ('!Select [0, !Split ["=", !Ref Hosts]]', "sandbox"),
        ("!GetAtt VendFunction.Arn", f"{ARN}stack-vend"),
        ("!Ref VendFunction", "stack-vend"),
        ("!Ref VendFunction.Alias", f"{ARN}stack-vend:live"),
        ("!Ref Job", f"{ARN}stack-vend:settlement-job"),
        ("{Ref: AWS::AccountId}", "123456789012"),
        ("15", "15"),
    ],
)
def test_intrinsics_are_resolved(read: Read, expression: str, value: str) -> None:
    job = """
        Job:
          Type: AWS::Lambda::Alias
          Properties:
            FunctionName: !Ref VendFunction
            FunctionVersion: !GetAtt VendFunction.Version.Version
            Name: settlement-job
    """
    spec = read(textwrap.dedent(function(f"{{VALUE: {expression}}}")) + textwrap.dedent(job)).functions["VendFunction"]
    assert spec.environment["VALUE"] == value
    assert set(spec.aliases) == {"live", "settlement-job"}


def test_a_property_that_is_no_value_is_left_out(read: Read) -> None:
    resources = function("{A: !Ref AWS::NoValue}", "MemorySize: !If [IsDev, !Ref AWS::NoValue, 512]")
    spec = read(resources).functions["VendFunction"]
    assert spec.memory_mb == 128
    assert "A" not in spec.environment


def test_a_limit_that_is_no_number_is_an_error_that_names_it(read: Read) -> None:
    with pytest.raises(TemplateError, match="VendFunction: MemorySize: must be a number"):
        read(function(more="MemorySize: !Ref Stage"))


def test_a_resource_whose_condition_is_false_does_not_exist(read: Read) -> None:
    resources = textwrap.dedent(function()) + "  Condition: IsDev\n"
    assert read(resources).functions
    assert not read(resources, Stage="sandbox").functions


def test_api_events_become_routes_to_the_alias(read: Read) -> None:
    application = read("""
        Api:
          Type: AWS::Serverless::Api
          Properties: {StageName: api, Auth: {DefaultAuthorizer: AWS_IAM}}
        ApiFunction:
          Type: AWS::Serverless::Function
          Properties:
            FunctionName: !Sub ${AWS::StackName}-api
            Handler: handlers.api.handler
            Events:
              Token: {Type: Api, Properties: {RestApiId: !Ref Api, Path: "/v1/{name}/token", Method: post}}
              Look: {Type: Api, Properties: {RestApiId: !Ref Api, Path: "/v1/{name}", Method: GET}}
    """)
    assert set(application.routes) == {
        Route("POST", "/v1/{name}/token", "ApiFunction", "live"),
        Route("GET", "/v1/{name}", "ApiFunction", "live"),
    }


def test_schedules_of_both_kinds_are_read(read: Read) -> None:
    event = "Events: {Daily: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 day), Input: '{\"a\": 1}'}}}"
    application = read(
        textwrap.dedent(function(more=event))
        + textwrap.dedent("""
        Nightly:
          Type: AWS::Scheduler::Schedule
          Properties:
            Name: !Sub ${AWS::StackName}-nightly
            ScheduleExpression: rate(1 day)
            FlexibleTimeWindow: {Mode: "OFF"}
            Target: {Arn: !Ref VendFunction.Alias, RoleArn: !GetAtt VendFunctionRole.Arn}
    """)
    )
    assert set(application.schedules) == {
        ScheduleSpec("VendFunctionDaily", "VendFunction", "live", '{"a": 1}'),
        ScheduleSpec("stack-nightly", "VendFunction", "live", "{}"),
    }


@pytest.mark.parametrize(
    "expression",
    [
        "!Ref NoDefault",
        "!GetAtt Table.StreamArn",
        "!Ref Queue",
        "!ImportValue other",
        "!If [Nothing, a, b]",
        "!Select [9, [a]]",
    ],
)
def test_what_only_a_deployment_knows_is_an_error_that_names_it(read: Read, expression: str) -> None:
    others = "\nTable: {Type: AWS::DynamoDB::Table}\nQueue: {Type: AWS::SQS::Queue}\n"
    with pytest.raises(TemplateError, match=r"VendFunction: Environment\.Variables\.VALUE: "):
        read(textwrap.dedent(function(f"{{VALUE: {expression}}}")) + others)


def test_a_table_is_known_by_its_name_and_made_as_the_template_says(read: Read) -> None:
    application = read(
        textwrap.dedent(function("{TABLE: !Ref Table}"))
        + textwrap.dedent("""
        Table:
          Type: AWS::DynamoDB::Table
          Properties:
            AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
            KeySchema: [{AttributeName: pk, KeyType: HASH}]
            TimeToLiveSpecification: {AttributeName: ttl, Enabled: true}
        Named: {Type: AWS::DynamoDB::Table, Properties: {TableName: !Sub "${Stage}-named"}}
    """)
    )
    assert application.functions["VendFunction"].environment["TABLE"] == "stack-Table"
    assert application.tables == (
        TableSpec(
            "stack-Table",
            ({"AttributeName": "pk", "AttributeType": "S"},),
            ({"AttributeName": "pk", "KeyType": "HASH"},),
            "ttl",
        ),
        TableSpec("dev-named", (), (), None),
    )


def test_what_the_stack_does_not_need_may_stay_unresolved(read: Read) -> None:
    assert read(function(more="KmsKeyArn: !ImportValue key")).functions


def test_a_parameter_that_the_template_does_not_have_is_an_error(read: Read) -> None:
    with pytest.raises(TemplateError, match="no parameter Hots"):
        read(function(), Hots="x")


def test_a_template_that_sam_refuses_is_an_error_that_names_the_resource(read: Read) -> None:
    with pytest.raises(TemplateError, match="VendFunction"):
        read(function(more="Events: {Odd: {Type: Nonsense}}"))


@pytest.mark.parametrize("text", ["a: [", "just text", "Resources: []"])
def test_a_file_that_is_no_template_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(text)
    with pytest.raises(TemplateError, match=r"template\.yaml"):
        read_application(path, {}, stack_name="stack", region="eu-west-1", account_id="123456789012")
