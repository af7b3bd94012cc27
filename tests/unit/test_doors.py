"""Each row of the README's error table, and the good answers, through both doors."""

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests

from imburse_auth.errors import VendingError
from tests.fakes import BASE_URL, aws_error, secret
from tests.machine import Context, Machine, Refusal, api_event

SINGLE = {"credential": "sandbox/tenant-a"}


@pytest.fixture
def machine() -> Machine:
    return Machine()


def by_api(machine: Machine) -> Refusal:
    return machine.api_refusal(api_event())


def by_invoke(machine: Machine) -> Refusal:
    return machine.invoke_refusal(SINGLE)


both_doors = pytest.mark.parametrize("door", [by_api, by_invoke])


# Good answers


def test_a_single_vend_answers_the_same_by_both_doors(machine: Machine) -> None:
    for answer in (json.loads(machine.api(api_event())["body"]), machine.invoke(SINGLE)):
        token = answer["accessToken"]
        assert token in machine.imburse.tokens
        assert answer == {
            "accessToken": token,
            "expires": 1614351800,
            "expiresAt": "2021-02-26T15:03:20Z",
            "expiresIn": 1800,
            "tokenType": "Bearer",
            "credential": "sandbox/tenant-a",
            "baseUrl": BASE_URL,
            "headers": {"Authorization": f"Bearer {token}", "x-account-id": "account-1", "x-tenant-id": "tenant-a"},
        }
    assert len(machine.imburse.tokens) == 2


def test_an_api_answer_may_not_be_kept(machine: Machine) -> None:
    response = machine.api(api_event())
    assert response["statusCode"] == 200
    assert response["headers"]["Cache-Control"] == "no-store"
    assert response["headers"]["Content-Type"] == "application/json"
    assert machine.api(api_event(role="stranger"))["headers"]["Cache-Control"] == "no-store"


@pytest.mark.parametrize("body", ["{}", "", None])
def test_a_single_vend_by_api_needs_no_body(machine: Machine, body: str | None) -> None:
    assert machine.api(api_event(body=body))["statusCode"] == 200


def test_a_batch_gives_that_many_different_tokens(machine: Machine) -> None:
    for answer in (
        json.loads(machine.api(api_event("tokens", body='{"count": 100}'))["body"]),
        machine.invoke({"credential": "sandbox/tenant-a", "count": 10}),
    ):
        assert answer["failures"] == []
        assert len({token["accessToken"] for token in answer["tokens"]}) == answer["requested"]
        assert all(token["headers"]["x-tenant-id"] == "tenant-a" for token in answer["tokens"])
    assert len(set(machine.imburse.nonces)) == 110


def test_a_batch_of_one_by_api_is_a_list(machine: Machine) -> None:
    answer = json.loads(machine.api(api_event("tokens", body='{"count": 1}'))["body"])
    assert len(answer["tokens"]) == answer["requested"] == 1


def test_a_batch_reads_the_key_once(machine: Machine) -> None:
    machine.api(api_event("tokens", body='{"count": 50}'))
    assert len(machine.aws.reads) == 1


def test_a_batch_for_a_credential_that_is_not_there_asks_once(machine: Machine) -> None:
    nothing_to_read(machine)
    assert machine.api_refusal(api_event("tokens", body='{"count": 500}')).code == "credential_not_found"
    assert len(machine.aws.reads) == 1


def test_a_direct_refusal_shows_no_frame_but_the_handlers_own(machine: Machine) -> None:
    imburse_says(403)(machine)
    with pytest.raises(VendingError) as caught:
        machine.invoke(SINGLE)
    frames = [frame.filename.rpartition("/")[2] for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_doors.py", "machine.py", "vend.py"]


def test_a_batch_reports_what_did_not_come(machine: Machine) -> None:
    machine.imburse.script = [lambda _: machine.imburse.refuse(400)] * 3 + [
        lambda _: machine.imburse.answer(b"<html>")
    ] * 2
    answer = json.loads(machine.api(api_event("tokens", body='{"count": 20}'))["body"])
    assert len(answer["tokens"]) == 15
    assert sorted((failure["count"], failure["type"]) for failure in answer["failures"]) == [
        (2, "urn:imburse-vending:error:upstream_protocol"),
        (3, "urn:imburse-vending:error:upstream_rejected"),
    ]
    assert machine.audit[-1]["failures"] == {"upstream_rejected": 3, "upstream_protocol": 2}
    assert len(machine.audit[-1]["tokens"]) == 15


def test_a_batch_without_a_single_token_is_an_error(machine: Machine) -> None:
    machine.imburse.always = lambda _: machine.imburse.refuse(400)
    refusal = machine.api_refusal(api_event("tokens", body='{"count": 20}'))
    assert refusal.code == "upstream_rejected"


def test_a_refused_key_stops_a_batch_early(machine: Machine) -> None:
    machine.imburse.keys.clear()
    assert machine.api_refusal(api_event("tokens", body='{"count": 500}')).code == "upstream_rejected"
    assert len(machine.imburse.requests) <= 64
    assert len(machine.aws.reads) <= 33


def test_a_batch_too_large_for_lambda_says_how_many_are_missing(machine: Machine) -> None:
    serial = iter(range(1_000_000))

    def huge(_: requests.PreparedRequest) -> Any:
        return machine.imburse.answer({"accessToken": f"{next(serial)}.{'x' * 40_000}", "expires": 1614351800})

    machine.imburse.always = huge
    response = machine.api(api_event("tokens", body='{"count": 100}'))
    answer = json.loads(response["body"])
    assert len(json.dumps(response)) < 6_000_000
    assert 0 < len(answer["tokens"]) < 100
    assert sum(failure["count"] for failure in answer["failures"]) == 100 - len(answer["tokens"])
    assert len(machine.audit[-1]["tokens"]) == len(answer["tokens"])


def test_identity_answers_accounts_and_tenants_and_no_token(machine: Machine) -> None:
    response = machine.api(api_event("identity", role="operators"))
    assert json.loads(response["body"]) == {
        "credential": "sandbox/tenant-a",
        "accounts": [{"accountId": "account-1"}],
        "tenants": [{"tenantId": "tenant-a"}],
    }
    assert machine.imburse.tokens == {}
    me = machine.imburse.requests[-1]
    assert (me.headers["x-account-id"], me.headers["x-tenant-id"]) == ("account-1", "tenant-a")


def test_identity_that_is_refused_carries_what_imburse_said(machine: Machine) -> None:
    machine.imburse.script = [machine.imburse.obey, lambda _: machine.imburse.refuse(403, "ROLE_LACKS_ACCESS")]
    refusal = machine.api_refusal(api_event("identity", role="operators"))
    assert (refusal.status, refusal.code) == (502, "upstream_rejected")
    expected = {"status": 403, "errorCode": "ROLE_LACKS_ACCESS", "correlationId": "0HLPSRAQ7S0I6:00000002"}
    assert refusal.document["upstream"] == expected


def test_identity_is_asked_again_with_another_token(machine: Machine) -> None:
    machine.imburse.script = [machine.imburse.obey, lambda _: machine.imburse.refuse(503)]
    assert machine.api(api_event("identity", role="operators"))["statusCode"] == 200
    bearers = [r.headers["Authorization"] for r in machine.imburse.requests if r.method == "GET"]
    assert len(bearers) == len(set(bearers)) == 2


@pytest.mark.parametrize("answer", [[], {}, {"accounts": 1}, "x"])
def test_identity_that_names_nothing_is_a_protocol_error(machine: Machine, answer: Any) -> None:
    machine.imburse.script = [machine.imburse.obey, lambda _: machine.imburse.answer(answer)]
    assert machine.api_refusal(api_event("identity", role="operators")).code == "upstream_protocol"


def test_tenants_may_stand_inside_their_accounts(machine: Machine) -> None:
    nested = {"accounts": [{"accountId": "a", "tenants": [{"tenantId": "t"}]}, {"accountId": "b"}]}
    machine.imburse.script = [machine.imburse.obey, lambda _: machine.imburse.answer(nested)]
    answer = json.loads(machine.api(api_event("identity", role="operators"))["body"])
    assert (answer["accounts"], answer["tenants"]) == (nested["accounts"], [{"tenantId": "t"}])


# invalid_request


@pytest.mark.parametrize(
    "event",
    [
        None, [], "text", 7, {}, {"credential": None}, {"credential": 7}, {"credential": ["sandbox/tenant-a"]}, {"credential": "sandbox"},
        {"credential": "sandbox/../production/tenant-a"}, {"credential": "sandbox/tenant-a\n"}, {"credential": "x" * 10_000_000},
        SINGLE | {"count": 0}, SINGLE | {"count": 501}, SINGLE | {"count": -1}, SINGLE | {"count": "1"}, SINGLE | {"count": 1.5},
        SINGLE | {"count": True}, SINGLE | {"count": None}, SINGLE | {"count": 10**400}, SINGLE | {"caller": "alias/settlement-job"},
        SINGLE | {"requestContext": {"identity": {"userArn": "arn:aws:iam::123456789012:role/orders"}}}, SINGLE | {"Count": 1},
        SINGLE | {"correlationId": "a\r\nx-evil: 1"}, SINGLE | {"correlationId": 7}, SINGLE | {"correlationId": "x" * 129},
    ],
)  # fmt: skip
def test_a_direct_event_that_is_wrong_is_invalid_and_goes_no_further(machine: Machine, event: Any) -> None:
    refusal = machine.invoke_refusal(event)
    assert (refusal.status, refusal.code, refusal.error_type) == (400, "invalid_request", "InvalidRequest")
    assert_nothing_was_reached(machine)
    assert len(refusal.document["detail"]) < 200


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("token", "[]"), ("token", '{"count": 1}'), ("token", "null"), ("token", "x"), ("token", "{" * 1000), ("token", "[" * 1_000_000),
        ("tokens", None), ("tokens", ""), ("tokens", "{}"), ("tokens", '{"count": 0}'), ("tokens", '{"count": 501}'),
        ("tokens", '{"count": "5"}'), ("tokens", '{"count": 1.5}'), ("tokens", '{"count": NaN}'), ("tokens", '{"count": true}'),
        ("tokens", '{"count": null}'), ("tokens", '{"count": 1, "count": 2}'), ("tokens", '{"count": 1, "credential": "sandbox/tenant-b"}'), ("tokens", "5"), ("tokens", "\ud800"),
        ("tokens", '{"count": ' + "9" * 1000 + "}"), ("tokens", '{"count": 1}' + " " * 10_000_000), ("identity", '{"count": 1}'), ("nowhere", None),
    ],
)  # fmt: skip
def test_an_api_request_that_is_wrong_is_invalid_and_goes_no_further(
    machine: Machine, route: str, body: str | None
) -> None:
    refusal = machine.api_refusal(api_event(route, body=body))
    assert (refusal.status, refusal.code) == (400, "invalid_request")
    assert_nothing_was_reached(machine)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ("sandbox", ".."), ("..", "tenant-a"), ("sandbox", "tenant-a/../tenant-b"), ("sandbox", "%2e%2e"), ("sandbox", "tenant-a\x00"),
        ("sandbox", "ｔenant-a"), ("sandbox", ""), ("sandbox", "a" * 65), ("sandbox", 'a"); permit(principal,action,resource);//'), ("sandbox", None),
    ],
)  # fmt: skip
def test_a_path_that_plays_tricks_is_invalid(machine: Machine, environment: str, name: Any) -> None:
    refusal = machine.api_refusal(api_event(environment=environment, name=name))
    assert (refusal.status, refusal.code) == (400, "invalid_request")
    assert_nothing_was_reached(machine)


def test_query_parameters_are_invalid(machine: Machine) -> None:
    assert machine.api_refusal(api_event() | {"queryStringParameters": {"count": "5"}}).code == "invalid_request"


def test_a_base64_body_is_read_and_a_broken_one_refused(machine: Machine) -> None:
    event = api_event("tokens", body="eyJjb3VudCI6IDJ9") | {"isBase64Encoded": True}
    assert len(json.loads(machine.api(event)["body"])["tokens"]) == 2
    assert machine.api_refusal(event | {"body": "%%%"}).code == "invalid_request"


# not_authorized


@pytest.mark.parametrize("alias", [None, "$LATEST", "7", "live", "access-report-x", "Settlement-Job", "orders"])
def test_a_direct_caller_whom_no_rule_names_gets_nothing(machine: Machine, alias: str | None) -> None:
    refusal = machine.invoke_refusal(SINGLE, Context(alias=alias))
    assert (refusal.status, refusal.code, refusal.error_type) == (403, "not_authorized", "NotAuthorized")
    assert_nothing_was_reached(machine)


@pytest.mark.parametrize("role", ["stranger", "Orders", "orders2", "operators", "payouts"])
def test_an_api_caller_whom_no_rule_names_gets_nothing(machine: Machine, role: str) -> None:
    refusal = machine.api_refusal(api_event(role=role))
    assert (refusal.status, refusal.code) == (403, "not_authorized")
    assert_nothing_was_reached(machine)


def test_a_count_above_what_the_rule_allows_is_refused(machine: Machine) -> None:
    assert machine.invoke_refusal(SINGLE | {"count": 11}).code == "not_authorized"
    assert_nothing_was_reached(machine)


def test_inspecting_is_not_vending_nor_the_reverse(machine: Machine) -> None:
    assert machine.api_refusal(api_event("identity", role="orders")).code == "not_authorized"
    assert machine.api_refusal(api_event("token", role="operators")).code == "not_authorized"


def test_production_is_reached_through_the_vpc_endpoint_only(machine: Machine) -> None:
    event = api_event(role="payouts", environment="production")
    assert machine.api_refusal(event).code == "not_authorized"
    event["requestContext"]["identity"]["vpceId"] = "vpce-0123456789abcdef0"
    assert machine.api_refusal(event).code == "credential_not_found"
    event["requestContext"]["identity"]["vpceId"] = "vpce-0123456789abcdef1"
    assert machine.api_refusal(event).code == "not_authorized"


@pytest.mark.parametrize(
    "identity",
    [
        None,
        {},
        {"userArn": None},
        {"userArn": ""},
        {"userArn": "orders"},
        {"userArn": "arn:aws:iam::123456789012:root/x y"},
    ],
)
def test_an_api_request_without_a_principal_is_refused(machine: Machine, identity: Any) -> None:
    event = api_event()
    event["requestContext"]["identity"] = identity
    assert machine.api_refusal(event).code == "not_authorized"


def test_a_forbidden_credential_and_an_unknown_one_look_the_same(machine: Machine) -> None:
    machine.aws.put("sandbox/tenant-y", secret())
    known = machine.api(api_event(name="tenant-y"))
    unknown = machine.api(api_event(name="tenant-z"))
    assert known == unknown
    assert_nothing_was_reached(machine)


# The rest of the table


def wrong_secret(members: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.aws.put("sandbox/tenant-a", members)


def secrets_fail(failure: Exception) -> Callable[[Machine], None]:
    return lambda machine: setattr(machine.aws, "failure", failure)


def imburse_says(status: int, **headers: str) -> Callable[[Machine], None]:
    return lambda machine: setattr(machine.imburse, "always", lambda _: machine.imburse.refuse(status, **headers))


def imburse_answers(body: Any) -> Callable[[Machine], None]:
    return lambda machine: setattr(machine.imburse, "always", lambda _: machine.imburse.answer(body))


def imburse_raises(failure: Exception) -> Callable[[Machine], None]:
    return lambda machine: setattr(machine.imburse, "always", lambda _: failure)


def nothing_to_read(machine: Machine) -> None:
    machine.aws.secrets.clear()


TABLE = [
    (nothing_to_read, 404, "credential_not_found", "CredentialNotFound"),
    (secrets_fail(aws_error("InvalidRequestException")), 404, "credential_not_found", "CredentialNotFound"),
    (wrong_secret("not json"), 500, "credential_misconfigured", "CredentialMisconfigured"),
    (wrong_secret(secret(accountId=None)), 500, "credential_misconfigured", "CredentialMisconfigured"),
    (wrong_secret(secret(privateKey="%%%")), 500, "credential_misconfigured", "CredentialMisconfigured"),
    (wrong_secret(secret(baseUrl="https://evil.example")), 500, "credential_misconfigured", "CredentialMisconfigured"),
    (
        wrong_secret(secret(baseUrl="http://169.254.169.254/")),
        500,
        "credential_misconfigured",
        "CredentialMisconfigured",
    ),
    (lambda machine: machine.imburse.keys.clear(), 502, "upstream_rejected", "UpstreamRejected"),
    (imburse_says(403), 502, "upstream_rejected", "UpstreamRejected"),
    (imburse_says(400), 502, "upstream_rejected", "UpstreamRejected"),
    (imburse_answers(b"<html>"), 502, "upstream_protocol", "UpstreamProtocol"),
    (imburse_answers({"expires": 1614351800}), 502, "upstream_protocol", "UpstreamProtocol"),
    (imburse_answers({"accessToken": "abc", "expires": 1}), 502, "upstream_protocol", "UpstreamProtocol"),
    (imburse_answers({"accessToken": "a\r\nb", "expires": 1614351800}), 502, "upstream_protocol", "UpstreamProtocol"),
    (imburse_answers(b" " * 70_000), 502, "upstream_protocol", "UpstreamProtocol"),
    (imburse_says(302, Location="https://evil.example/"), 502, "upstream_protocol", "UpstreamProtocol"),
    (imburse_says(429), 503, "upstream_throttled", "UpstreamThrottled"),
    (imburse_says(500), 503, "upstream_unavailable", "UpstreamUnavailable"),
    (imburse_raises(requests.ConnectionError()), 503, "upstream_unavailable", "UpstreamUnavailable"),
    (imburse_raises(requests.ReadTimeout()), 503, "upstream_unavailable", "UpstreamUnavailable"),
    (secrets_fail(aws_error("InternalServiceError", 500)), 503, "secrets_unavailable", "SecretsUnavailable"),
    (secrets_fail(aws_error("AccessDeniedException")), 503, "secrets_unavailable", "SecretsUnavailable"),
    (secrets_fail(RuntimeError("a bug")), 500, "internal_error", "InternalError"),
    (lambda m: setattr(m, "audit_failure", OSError("full")), 503, "audit_unavailable", "AuditUnavailable"),
]


@pytest.mark.parametrize(("arrange", "status", "code", "error_type"), TABLE)
@both_doors
def test_each_row_of_the_error_table(
    machine: Machine,
    door: Callable[[Machine], Refusal],
    arrange: Callable[[Machine], None],
    status: int,
    code: str,
    error_type: str,
) -> None:
    arrange(machine)
    refusal = door(machine)
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.error_type in (None, error_type)
    assert refusal.document["title"]
    assert refusal.document["detail"]
    assert refusal.document["requestId"]
    if status == 503:
        assert int(refusal.headers.get("Retry-After") or refusal.document["retryAfter"]) >= 1
    else:
        assert "Retry-After" not in refusal.headers
    if code != "audit_unavailable":
        assert [record["error"] for record in machine.audit] == [code]
        assert "tokens" not in machine.audit[0]


@both_doors
def test_a_retry_after_of_imburse_reaches_the_caller(machine: Machine, door: Callable[[Machine], Refusal]) -> None:
    imburse_says(429, retry_after="77")(machine)
    refusal = door(machine)
    assert refusal.headers.get("Retry-After", refusal.document.get("retryAfter")) in ("77", 77)


@both_doors
def test_what_imburse_said_is_part_of_the_problem(machine: Machine, door: Callable[[Machine], Refusal]) -> None:
    imburse_says(403)(machine)
    expected = {"status": 403, "errorCode": "SOME_CODE", "correlationId": "0HLPSRAQ7S0I6:00000002"}
    assert door(machine).document["upstream"] == expected


@both_doors
def test_a_rotated_key_is_picked_up_when_the_old_one_is_refused(
    machine: Machine, door: Callable[[Machine], Refusal]
) -> None:
    machine.invoke(SINGLE)
    members = secret()
    machine.imburse.keys.clear()
    machine.imburse.accept(members)
    machine.aws.put("sandbox/tenant-a", members)
    assert machine.invoke(SINGLE)["accessToken"] in machine.imburse.tokens


def test_a_token_that_imburse_gives_out_twice_is_handed_out_once(machine: Machine) -> None:
    imburse_answers({"accessToken": "the-same", "expires": 1614351800})(machine)
    assert machine.invoke(SINGLE)["accessToken"] == "the-same"
    assert machine.invoke_refusal(SINGLE).code == "upstream_protocol"
    assert machine.api_refusal(api_event("tokens", body='{"count": 10}')).code == "upstream_protocol"


def test_no_time_left_is_unavailable_and_not_a_timeout(machine: Machine) -> None:
    refusal = machine.invoke_refusal(SINGLE, Context(remaining_ms=900))
    assert (refusal.code, refusal.document["retryAfter"]) == ("secrets_unavailable", 5)
    assert_nothing_was_reached(machine)
    machine.invoke(SINGLE)
    refusal = machine.invoke_refusal(SINGLE, Context(remaining_ms=900))
    assert (refusal.code, refusal.document["retryAfter"]) == ("upstream_unavailable", 5)


def test_a_batch_stops_when_imburse_is_throttling(machine: Machine) -> None:
    imburse_says(429)(machine)
    assert machine.api_refusal(api_event("tokens", body='{"count": 500}')).code == "upstream_throttled"
    assert len(machine.imburse.requests) <= 32 * 4


def test_a_new_key_is_held_to_the_list_of_hosts_like_the_first(machine: Machine) -> None:
    machine.invoke(SINGLE)
    members = secret(baseUrl="https://evil.example")
    machine.imburse.keys.clear()
    machine.imburse.accept(members)
    machine.aws.put("sandbox/tenant-a", members)
    assert machine.invoke_refusal(SINGLE).code == "credential_misconfigured"


def test_a_new_key_is_exchanged_at_its_own_host(machine: Machine) -> None:
    machine.invoke(SINGLE)
    members = secret(baseUrl="https://api.imburse.test")
    machine.imburse.keys.clear()
    machine.imburse.accept(members)
    machine.aws.put("sandbox/tenant-a", members)
    assert machine.invoke(SINGLE)["baseUrl"] == "https://api.imburse.test"
    assert str(machine.imburse.requests[-1].url).startswith("https://api.imburse.test/")


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "x",
        {},
        {"requestContext": None},
        {"requestContext": []},
        {"requestContext": {"identity": [], "requestId": "a\nb"}},
        {"requestContext": {"identity": {"userArn": 5}}},
        {"headers": []},
    ],
)
def test_an_event_that_is_not_api_gateways_is_refused_and_recorded(machine: Machine, event: Any) -> None:
    assert machine.api_refusal(event).code == "not_authorized"
    assert machine.audit[0]["requestId"] == Context().aws_request_id


def test_an_identity_answer_that_repeats_the_token_is_not_passed_on(machine: Machine) -> None:
    def repeat(request: requests.PreparedRequest) -> Any:
        return machine.imburse.answer({"accounts": [str(request.headers["Authorization"])]})

    machine.imburse.script = [machine.imburse.obey, repeat]
    assert machine.api_refusal(api_event("identity", role="operators")).code == "upstream_protocol"


def assert_nothing_was_reached(machine: Machine) -> None:
    assert machine.aws.reads == []
    assert machine.imburse.requests == []
    assert "tokens" not in machine.audit[-1]
