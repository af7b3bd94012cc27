"""The API of template.yaml: its routes, who may reach them, and what it keeps to itself."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.stack import ACCOUNT, ORGANIZATION, REGION, Stack, deploy, judge, listed

CREDENTIAL = "/v1/credentials/{environment}/{name}"
CALLERS_ROUTES = {("POST", f"{CREDENTIAL}/token"), ("POST", f"{CREDENTIAL}/tokens"), ("GET", f"{CREDENTIAL}/identity")}
OPERATORS_ROUTES = {("POST", "/v1/brake")}
ROUTES = CALLERS_ROUTES | OPERATORS_ROUTES
ENDPOINTS = "vpce-0123456789abcdef0,vpce-0fedcba9876543210"
OTHER_ACCOUNT = "210987654321"


@pytest.fixture(scope="module")
def stack() -> Stack:
    return deploy()


def methods(stack: Stack) -> dict[tuple[str, str], dict[str, Any]]:
    paths = stack.properties("VendingApi")["Body"]["paths"]
    return {(verb.upper(), path): method for path, verbs in paths.items() for verb, method in verbs.items()}


def test_there_are_these_routes_and_each_wants_a_signature(stack: Stack) -> None:
    assert set(methods(stack)) == ROUTES
    for method in methods(stack).values():
        assert method["security"] == [{"AWS_IAM": []}]
    scheme = stack.properties("VendingApi")["Body"]["components"]["securitySchemes"]["AWS_IAM"]
    assert scheme["x-amazon-apigateway-authtype"] == "awsSigv4"


def test_each_route_invokes_the_live_alias_as_api_gateway_and_not_as_the_caller(stack: Stack) -> None:
    for method in methods(stack).values():
        integration = method["x-amazon-apigateway-integration"]
        assert integration["type"] == "aws_proxy"
        assert integration["uri"].endswith("/functions/<ApiFunctionAliaslive>/invocations")
        assert "credentials" not in integration


def test_api_gateway_may_invoke_the_function_for_these_routes_and_nobody_else_may(stack: Stack) -> None:
    permissions = [p for name, p in stack.of_type("AWS::Lambda::Permission").items() if name != "RotatePermission"]
    assert {(p["Principal"], p["Action"], p["FunctionName"]) for p in permissions} == {
        ("apigateway.amazonaws.com", "lambda:InvokeFunction", "<ApiFunctionAliaslive>")
    }
    prefix = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:<VendingApi>/*/"
    assert {p["SourceArn"] for p in permissions} == {f"{prefix}{verb}{wildcards(path)}" for verb, path in ROUTES}


def wildcards(path: str) -> str:
    return re.sub(r"\{\w+\}", "*", path)


class TestWhoReachesIt:
    """API Gateway with IAM authorization: within the account the caller's own policy suffices where the resource policy is
    silent, from another account both must allow (the developer guide's tables A and B of policy evaluation outcomes)."""

    @pytest.mark.parametrize(
        ("parameters", "account", "organization", "endpoint", "reaches"),
        [
            ({"OrganizationId": ORGANIZATION}, ACCOUNT, ORGANIZATION, None, True),
            ({"OrganizationId": ORGANIZATION}, OTHER_ACCOUNT, ORGANIZATION, None, True),
            ({"OrganizationId": ORGANIZATION}, OTHER_ACCOUNT, "o-somebodyelse", None, False),
            ({"OrganizationId": ORGANIZATION}, OTHER_ACCOUNT, None, None, False),
            ({"VpcEndpointIds": ENDPOINTS}, ACCOUNT, None, ENDPOINTS.split(",")[0], True),
            ({"VpcEndpointIds": ENDPOINTS}, ACCOUNT, None, ENDPOINTS.split(",")[1], True),
            ({"VpcEndpointIds": ENDPOINTS}, ACCOUNT, None, "vpce-00000000000000000", False),
            ({"VpcEndpointIds": ENDPOINTS}, ACCOUNT, None, None, False),
            ({"VpcEndpointIds": ENDPOINTS}, OTHER_ACCOUNT, ORGANIZATION, ENDPOINTS.split(",")[0], False),
            (
                {"OrganizationId": ORGANIZATION, "VpcEndpointIds": ENDPOINTS},
                OTHER_ACCOUNT,
                ORGANIZATION,
                ENDPOINTS[:22],
                True,
            ),
            ({"OrganizationId": ORGANIZATION, "VpcEndpointIds": ENDPOINTS}, ACCOUNT, ORGANIZATION, None, False),
            ({"OrganizationId": ORGANIZATION, "VpcEndpointIds": ENDPOINTS}, ACCOUNT, None, ENDPOINTS[:22], False),
            ({}, ACCOUNT, ORGANIZATION, None, False),
            ({}, OTHER_ACCOUNT, ORGANIZATION, ENDPOINTS[:22], False),
        ],
    )
    def test_is_as_the_parameters_say(
        self, parameters: dict[str, str], account: str, organization: str | None, endpoint: str | None, reaches: bool
    ) -> None:
        policy = deploy(**parameters).properties("VendingApi")["Body"]["x-amazon-apigateway-policy"]
        context = {"aws:PrincipalAccount": account}
        context |= {"aws:PrincipalOrgID": organization} if organization else {}
        context |= {"aws:SourceVpce": endpoint} if endpoint else {}
        judgement = judge(policy["Statement"], "execute-api:Invoke", "execute-api:/*", context)
        assert (judgement == "Allow" or (judgement == "silent" and account == ACCOUNT)) is reaches

    @pytest.mark.parametrize(
        ("parameters", "kind"),
        [({"OrganizationId": ORGANIZATION}, "REGIONAL"), ({"VpcEndpointIds": ENDPOINTS}, "PRIVATE")],
    )
    def test_the_api_is_private_if_endpoints_are_named(self, parameters: dict[str, str], kind: str) -> None:
        endpoint = deploy(**parameters).properties("VendingApi")["EndpointConfiguration"]
        assert endpoint["Types"] == [kind]
        assert endpoint.get("VpcEndpointIds") == (ENDPOINTS.split(",") if kind == "PRIVATE" else None)

    def test_a_deployment_that_says_neither_is_refused(self) -> None:
        assert not deploy().rule_holds
        assert deploy(OrganizationId=ORGANIZATION).rule_holds
        assert deploy(VpcEndpointIds=ENDPOINTS).rule_holds

    def test_another_resource_policy_is_another_deployment_of_the_api(self) -> None:
        # A resource policy takes effect only when the API is deployed again.
        settings = ({"OrganizationId": ORGANIZATION}, {"VpcEndpointIds": ENDPOINTS}, {"VpcEndpointIds": ENDPOINTS[:22]})
        deployments = {name for s in settings for name in deploy(**s).of_type("AWS::ApiGateway::Deployment")}
        assert len(deployments) == len(settings)


class TestTheStage:
    @pytest.fixture
    def settings(self, stack: Stack) -> dict[str, Any]:
        (stage,) = stack.of_type("AWS::ApiGateway::Stage").values()
        return dict(stage)

    def test_has_the_name_that_the_url_says(self, stack: Stack, settings: dict[str, Any]) -> None:
        assert settings["StageName"] == "api"
        assert stack.outputs["ApiUrl"] == f"https://<VendingApi>.execute-api.{REGION}.amazonaws.com/api"

    def test_never_logs_a_body_nor_keeps_an_answer(self, settings: dict[str, Any]) -> None:
        (every_method,) = settings["MethodSettings"]
        assert (every_method["ResourcePath"], every_method["HttpMethod"]) == ("/*", "*")
        assert every_method["DataTraceEnabled"] is False
        assert every_method["CachingEnabled"] is False
        assert every_method["ThrottlingRateLimit"] > 0
        assert every_method["ThrottlingBurstLimit"] > 0
        assert not settings.get("CacheClusterEnabled")
        assert settings["TracingEnabled"] is True

    def test_logs_each_access_as_json_without_any_header(self, settings: dict[str, Any]) -> None:
        log = settings["AccessLogSetting"]
        assert log["DestinationArn"] == "<AccessLogs.Arn>"
        line = json.loads(log["Format"])
        assert line["caller"] == "$context.identity.userArn"
        assert all(value.startswith("$context.") for value in line.values())
        assert not re.search(r"authorizer|authorization|header|apiKey", log["Format"], re.IGNORECASE)


def test_the_api_speaks_no_tls_older_than_1_2(stack: Stack) -> None:
    api = stack.properties("VendingApi")
    assert api["SecurityPolicy"].startswith("SecurityPolicy_TLS13_1_2_PFS")
    assert (
        api["EndpointAccessMode"] == "STRICT"
    )  # enhanced security policies want a mode; this one checks the host name


@pytest.mark.parametrize(
    ("output", "routes"), [("ApiCallerPolicy", CALLERS_ROUTES), ("OperatorPolicy", OPERATORS_ROUTES)]
)
def test_an_api_callers_policy_names_its_routes_and_nothing_else(
    stack: Stack, output: str, routes: set[tuple[str, str]]
) -> None:
    (statement,) = json.loads(stack.outputs[output])["Statement"]
    prefix = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:<VendingApi>/api/"
    assert statement["Effect"] == "Allow"
    assert statement["Action"] == "execute-api:Invoke"
    assert set(listed(statement["Resource"])) == {f"{prefix}{verb}{wildcards(path)}" for verb, path in routes}


@pytest.mark.parametrize("caller", ["SettlementJob", "AccessReport"])
def test_a_direct_callers_policy_names_its_alias_and_nothing_else(stack: Stack, caller: str) -> None:
    (statement,) = json.loads(stack.outputs[f"{caller}CallerPolicy"])["Statement"]
    assert statement == {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": f"<{caller}Caller>"}
    assert stack.outputs[f"{caller}CallerArn"] == f"<{caller}Caller>"


@pytest.mark.parametrize(("create", "made"), [("true", True), ("false", False)])
def test_the_accounts_log_setting_is_made_only_if_asked_and_the_stage_waits_for_it(create: str, made: bool) -> None:
    stack = deploy(CreateApiGatewayLogRole=create)
    (stage,) = stack.of_type("AWS::ApiGateway::Stage").values()
    assert ("ApiGatewayAccount" in stack.resources) is made
    assert ("<ApiGatewayAccount>" in str(stage["Tags"])) is made
