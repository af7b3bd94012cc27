"""openapi.json tells what the code does: made from it, and held against its real answers."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from imburse_auth.errors import VendingError
from local import openapi
from local.template import Route
from tests.fakes import aws_error
from tests.machine import Machine, api_event
from vending.answer import URN
from vending.table import TableUnavailable

DOCUMENT = json.loads(openapi.FILE.read_text())
DIALECT = jsonschema.Draft202012Validator
BRAKE = """
@id("operator") permit (principal == Caller::"arn:aws:iam::123456789012:role/operators", action == Action::"operate", resource);
"""


def test_the_committed_document_is_what_the_code_says() -> None:
    assert openapi.FILE.read_text() == openapi.text(openapi.template_routes()), "make openapi, and commit it"


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate(DOCUMENT)


def test_every_route_of_the_template_is_in_it_and_no_other() -> None:
    told = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert told == {(route.method, route.path) for route in openapi.template_routes()}


def test_a_route_that_nothing_is_said_about_stops_it() -> None:
    with pytest.raises(ValueError, match="is not in list"):
        openapi.document([Route("GET", "/v1/new", "ApiFunction", "live")])


def _kinds(kind: type[VendingError]) -> set[type[VendingError]]:
    return {kind}.union(*(_kinds(sub) for sub in kind.__subclasses__()))


def test_every_error_that_the_api_can_answer_is_told_with_its_status() -> None:
    from imburse_auth import errors as layer
    from vending import errors as functions

    told = {
        (int(status), kind)
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        for kind in response["content"].get("application/problem+json", {}).get("examples", {})
    }
    public = {kind for module in (layer, functions) for kind in vars(module).values() if isinstance(kind, type)}
    errors = {kind for kind in public if issubclass(kind, VendingError)} - {VendingError}
    by_invoke_only = {"proof_unavailable"}  # a proof comes with a direct invoke
    assert told == {(kind.status, kind.code) for kind in errors if kind.code not in by_invoke_only}


def check(event: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """Hold an answer against what is told of its route and status."""
    operation = DOCUMENT["paths"][event["resource"]][event["httpMethod"].lower()]
    told = operation["responses"][str(response["statusCode"])]
    schema = told["content"][response["headers"]["Content-Type"]]["schema"]
    body: dict[str, Any] = json.loads(response["body"])
    DIALECT({**schema, "components": DOCUMENT["components"]}).validate(body)
    assert ("Retry-After" in response["headers"]) <= ("Retry-After" in told.get("headers", {}))
    return body


def _order(**members: str) -> dict[str, Any]:
    return {**api_event(role="operators", body=json.dumps(members)), "resource": "/v1/brake", "httpMethod": "POST"}


def test_what_is_answered_is_what_is_told() -> None:
    machine = Machine()
    for event in (
        api_event(),
        api_event(body='{"minimumLifetimeSeconds": 60}'),
        api_event("tokens", body='{"count": 3}'),
    ):
        body = check(event, machine.api(event))
        assert len(body.get("tokens", [body])) in (1, 3)
    inspected = api_event("identity", role="operators")
    assert check(inspected, machine.api(inspected))["tenants"]
    for event in (
        _order(operate="freeze", scope="credential", target="sandbox/tenant-a", why="try"),
        _order(operate="thaw", scope="everything", why="try"),
    ):
        assert check(event, machine.api(event))["effectiveWithinSeconds"] == 10


def test_an_account_keys_token_is_told_too() -> None:
    machine = Machine()
    machine.aws.put("sandbox/tenant-a", {k: v for k, v in machine.members.items() if k != "tenantId"})
    assert "x-tenant-id" not in check(api_event(), machine.api(api_event()))["headers"]


def test_a_partial_batch_is_told_too() -> None:
    machine = Machine()
    machine.imburse.script += [lambda _: machine.imburse.refuse(400)] * 2
    event = api_event("tokens", body='{"count": 5}')
    assert check(event, machine.api(event))["failures"] == [{"count": 2, "type": URN + "upstream_rejected"}]


def _secret_gone(machine: Machine) -> None:
    machine.aws.secrets.clear()


def _secret_broken(machine: Machine) -> None:
    machine.aws.put("sandbox/tenant-a", "{")


def _secrets_down(machine: Machine) -> None:
    machine.aws.failure = aws_error("InternalServiceError", 500)


def _no_audit(machine: Machine) -> None:
    machine.audit_failure = OSError("disk full")


def _upstream(status: int) -> Callable[[Machine], None]:
    def fail(machine: Machine) -> None:
        machine.imburse.always = lambda _: machine.imburse.refuse(status)

    return fail


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (_secret_gone, "credential_not_found"),
        (_secret_broken, "credential_misconfigured"),
        (_secrets_down, "secrets_unavailable"),
        (_no_audit, "audit_unavailable"),
        (_upstream(400), "upstream_rejected"),
        (_upstream(302), "upstream_protocol"),
        (_upstream(429), "upstream_throttled"),
        (_upstream(503), "upstream_unavailable"),
    ],
)
def test_each_refusal_is_what_is_told(trouble: Callable[[Machine], None], code: str) -> None:
    machine = Machine()
    trouble(machine)
    assert check(api_event(), machine.api(api_event()))["type"] == URN + code


def test_a_stranger_a_bad_request_and_a_brake_out_of_reach_are_told_too() -> None:
    machine = Machine()
    stranger, odd = api_event(role="stranger"), api_event(body='{"count": 1}')
    assert check(stranger, machine.api(stranger))["type"] == URN + "not_authorized"
    assert check(odd, machine.api(odd))["type"] == URN + "invalid_request"
    machine.table.failure = TableUnavailable("down")
    order = _order(operate="freeze", scope="everything", why="try")
    assert check(order, machine.api(order))["type"] == URN + "brake_unavailable"


BATCH = DOCUMENT["components"]["schemas"]["BatchRequest"]


@pytest.mark.parametrize(
    "body",
    [{"count": count} for count in (0, 1, 2.0, 500, 501, "1", 1.5, 1e300, None, True)]
    + [{"count": 1, "minimumLifetimeSeconds": seconds} for seconds in (-1, 0, 1500, 1501)]
    + [{}, {"count": 1, "more": 1}, [], None],
)
def test_a_body_is_let_in_if_and_only_if_the_document_says_so(body: object) -> None:
    machine = Machine()
    answered = machine.api(api_event("tokens", body=json.dumps(body)))["statusCode"]
    assert (answered == 200) == DIALECT(BATCH).is_valid(body)


@pytest.mark.parametrize(
    "name", ["tenant-a", "a", "A.b_c-9", "-a", "a-", "a..b", "", "a b", "ä", "a" * 64, "a" * 65, "a\n"]
)
def test_a_name_is_one_if_and_only_if_the_document_says_so(name: str) -> None:
    (schema,) = (
        parameter["schema"]
        for parameter in DOCUMENT["paths"]["/v1/credentials/{environment}/{name}/token"]["post"]["parameters"]
        if parameter["name"] == "name"
    )
    answered = Machine().api(api_event(name=name))["statusCode"]
    # `$` in Python, which this validator uses, lets a line break follow; in the ECMA dialect of JSON Schema it does not.
    assert (answered != 400) == (DIALECT(schema).is_valid(name) and not name.endswith("\n"))


ORDER = {**DOCUMENT["components"]["schemas"]["Order"], "components": DOCUMENT["components"]}
ACCOUNT = "arn:aws:iam::123456789012"


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        ("credential", "sandbox/tenant-a"),
        ("credential", "sandbox"),
        ("credential", "sandbox/a..b"),
        ("credential", None),
        ("caller", f"{ACCOUNT}:role/orders"),
        ("caller", f"{ACCOUNT}:role/path/orders"),
        ("caller", f"{ACCOUNT}:user/ann"),
        ("caller", f"{ACCOUNT}:root"),
        ("caller", "arn:aws:sts::123456789012:assumed-role/orders/session"),
        ("caller", "arn:aws:sts::123456789012:assumed-role/orders"),
        ("caller", "arn:aws:sts::123456789012:assumed-role/orders/a/b"),
        ("caller", "arn:aws:iam::12345:role/orders"),
        ("caller", "arn:aws:s3:::bucket"),
        ("caller", "alias/settlement-job"),
        ("caller", "alias/12"),
        ("caller", "alias/a b"),
        ("caller", "orders"),
        ("caller", f"{ACCOUNT}:role/" + "a" * 900),
        ("everything", None),
        ("everything", "sandbox/tenant-a"),
        ("nothing", None),
    ],
)
def test_an_order_is_one_if_and_only_if_the_document_says_so(scope: str, target: str | None) -> None:
    members = {"operate": "freeze", "scope": scope, "why": "try"}
    if target is not None:
        members["target"] = target
    event = _order(**members)
    event["requestContext"]["identity"]["userArn"] = "arn:aws:sts::123456789012:assumed-role/operators/session"
    machine = Machine(policy=BRAKE)
    answered = machine.api(event)["statusCode"]
    assert answered in (200, 400)
    assert (answered == 200) == DIALECT(ORDER).is_valid(members)
