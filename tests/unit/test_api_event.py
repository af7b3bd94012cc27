"""The proxy event and the proxy answer, and how a principal looks in it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.api_caller import LocalCaller
from local.api_event import ApiLabels, Arrival, MalformedAnswer, RouteMatch, match_path, proxy_event, read_answer
from local.sigv4 import WireRequest

RESOURCE = "/v1/credentials/{environment}/{name}/token"
CALLER = LocalCaller("AKIAORDERS", "a secret of the tests", "arn:aws:iam::123456789012:role/orders")


def event_of(
    target: str = "/v1/credentials/sandbox/tenant-a/token",
    headers: tuple[tuple[str, str], ...] = (("Host", "127.0.0.1:3000"), ("User-Agent", "tests")),
    body: bytes = b"",
) -> dict[str, Any]:
    request = WireRequest("POST", target, headers, body)
    match = match_path(RESOURCE, request.path)
    assert match is not None
    arrival = Arrival("the-request-id", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "127.0.0.1")
    return proxy_event(request, match, CALLER, arrival, ApiLabels("123456789012", "eu-west-1", "dev"))


@pytest.mark.parametrize(
    ("arn", "user_arn"),
    [
        ("arn:aws:iam::123456789012:role/orders", "arn:aws:sts::123456789012:assumed-role/orders/local-AKIA"),
        ("arn:aws:iam::123456789012:role/team/a/orders", "arn:aws:sts::123456789012:assumed-role/orders/local-AKIA"),
        ("arn:aws:sts::123456789012:assumed-role/orders/i-1", "arn:aws:sts::123456789012:assumed-role/orders/i-1"),
        ("arn:aws:iam::123456789012:user/alice", "arn:aws:iam::123456789012:user/alice"),
    ],
)
def test_a_role_is_seen_as_a_session_of_it_and_anything_else_as_it_is(arn: str, user_arn: str) -> None:
    assert LocalCaller("AKIA", "a secret of the tests", arn).user_arn == user_arn


@pytest.mark.parametrize("arn", ["", "orders", "arn:aws:iam::1:role/orders", "arn:aws:s3:::bucket"])
def test_a_caller_must_be_a_principal_and_its_secret_is_not_shown(arn: str) -> None:
    with pytest.raises(ValueError, match="AKIA: arn must be"):
        LocalCaller("AKIA", "a secret of the tests", arn)
    assert "a secret of the tests" not in repr(CALLER)


def test_the_event_says_who_called() -> None:
    identity = event_of()["requestContext"]["identity"]

    assert identity["userArn"] == "arn:aws:sts::123456789012:assumed-role/orders/local-AKIAORDERS"
    assert identity["accessKey"] == "AKIAORDERS"
    assert identity["accountId"] == "123456789012"
    assert identity["caller"] == identity["user"]
    assert identity["caller"].startswith("AROA")
    assert identity["caller"].endswith(":local-AKIAORDERS")
    assert (identity["sourceIp"], identity["userAgent"]) == ("127.0.0.1", "tests")
    assert "vpceId" not in identity


def test_the_event_says_what_was_asked() -> None:
    event = event_of(body="{“a”}".encode())
    context = event["requestContext"]

    assert event["resource"] == context["resourcePath"] == RESOURCE
    assert event["path"] == context["path"] == "/v1/credentials/sandbox/tenant-a/token"
    assert event["httpMethod"] == context["httpMethod"] == "POST"
    assert event["pathParameters"] == {"environment": "sandbox", "name": "tenant-a"}
    assert (event["body"], event["isBase64Encoded"]) == ("{“a”}", False)
    assert (context["stage"], context["requestId"]) == ("dev", "the-request-id")
    assert (context["requestTime"], context["requestTimeEpoch"]) == ("02/Jan/2026:03:04:05 +0000", 1767323045000)
    assert (event["queryStringParameters"], event["multiValueQueryStringParameters"]) == (None, None)


def test_headers_keep_every_value_and_the_spelling_that_came_first() -> None:
    event = event_of(headers=(("X-Many", "1"), ("x-many", "2"), ("Accept", "*/*")))

    assert event["multiValueHeaders"] == {"X-Many": ["1", "2"], "Accept": ["*/*"], "X-Forwarded-For": ["127.0.0.1"]}
    assert event["headers"] == {"X-Many": "2", "Accept": "*/*", "X-Forwarded-For": "127.0.0.1"}


def test_the_signature_stays_with_the_front() -> None:
    assert "authorization" not in json.dumps(event_of(headers=(("authorization", "AWS4-HMAC-SHA256 ..."),))).lower()


def test_a_client_cannot_pose_as_another_address() -> None:
    event = event_of(headers=(("X-Forwarded-For", "203.0.113.9"),))

    assert event["headers"]["X-Forwarded-For"] == "203.0.113.9, 127.0.0.1"
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"


def test_the_query_is_decoded_with_every_value() -> None:
    event = event_of("/v1/credentials/sandbox/tenant-a/token?a=1&a=%C3%A9+b&c")

    assert event["multiValueQueryStringParameters"] == {"a": ["1", "é b"], "c": [""]}
    assert event["queryStringParameters"] == {"a": "é b", "c": ""}


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/v1/credentials/sandbox/tenant%20a/token", {"environment": "sandbox", "name": "tenant a"}),
        ("/v1/credentials/sandbox/..%2F..%2Fx/token", {"environment": "sandbox", "name": "../../x"}),
        ("/v1/credentials/../tenant-a/token", {"environment": "..", "name": "tenant-a"}),
        ("/v1/credentials/sandbox/%E6%9D%B1/token", {"environment": "sandbox", "name": "東"}),
        ("/v1/credentials/sandbox/%FF/token", {"environment": "sandbox", "name": "\ufffd"}),
        ("/v1/credentials/sandbox/%zz/token", {"environment": "sandbox", "name": "%zz"}),
        ("/v1/credentials/sandbox/a/b/token", None),
        ("/v1/credentials/sandbox//token", None),
        ("/v1/credentials/sandbox/tenant-a/token/", None),
        ("//v1/credentials/sandbox/tenant-a/token", None),
        ("/V1/credentials/sandbox/tenant-a/token", None),
    ],
)
def test_a_path_is_split_before_it_is_decoded(path: str, parameters: dict[str, str] | None) -> None:
    expected = RouteMatch(RESOURCE, parameters) if parameters else None
    assert match_path(RESOURCE, path) == expected


def test_an_answer_becomes_an_http_answer() -> None:
    answer = {
        "statusCode": 201,
        "headers": {"X-One": "single", "X-Two": 2, "X-Three": True},
        "multiValueHeaders": {"X-One": ["a", "b"]},
        "body": "é",
    }
    read = read_answer(json.dumps(answer).encode())

    assert (read.status, read.body) == (201, "é".encode())
    assert read.headers == (("X-One", "a"), ("X-One", "b"), ("X-Two", "2"), ("X-Three", "true"))


def test_a_base64_body_is_decoded() -> None:
    answer = {"statusCode": 200, "isBase64Encoded": True, "body": base64.b64encode(b"\xff\x00").decode()}
    assert read_answer(json.dumps(answer).encode()).body == b"\xff\x00"


def test_headers_that_api_gateway_answers_itself_arrive_under_another_name() -> None:
    answer = {"statusCode": 200, "headers": {"Content-Length": "1", "date": "never"}}
    assert read_answer(json.dumps(answer).encode()).headers == (
        ("x-amzn-Remapped-Content-Length", "1"),
        ("x-amzn-Remapped-date", "never"),
    )


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"statusCode": None},
        {"statusCode": "abc"},
        {"statusCode": True},
        {"statusCode": 99},
        {"statusCode": 600},
        {"statusCode": 200, "body": {}},
        {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "headers": {"X": None}},
        {"statusCode": 200, "headers": {"X": ["a"]}},
        {"statusCode": 200, "headers": {"X Y": "a"}},
        {"statusCode": 200, "headers": {"": "a"}},
        {"statusCode": 200, "headers": {"X": "a\r\nSet-Cookie: b"}},
        {"statusCode": 200, "headers": {"X": "a\nb"}},
        {"statusCode": 200, "headers": {"X\r\nY": "a"}},
        {"statusCode": 200, "multiValueHeaders": {"X": "a"}},
        {"statusCode": 200, "multiValueHeaders": {"X": ["ok", "a\r\n\r\n<html>"]}},
    ],
)
def test_an_answer_that_is_none_is_malformed(answer: Any) -> None:
    with pytest.raises(MalformedAnswer):
        read_answer(json.dumps(answer).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(payload=st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_payload_is_an_answer_or_malformed(payload: bytes) -> None:
    try:
        read_answer(payload)
    except MalformedAnswer:
        return


@given(headers=JSON, multi=JSON, body=JSON, status=JSON)
def test_any_fields_make_an_answer_or_are_malformed(headers: Any, multi: Any, body: Any, status: Any) -> None:
    answer = {"statusCode": status, "headers": headers, "multiValueHeaders": multi, "body": body}
    try:
        read = read_answer(json.dumps(answer).encode())
    except MalformedAnswer:
        return
    assert not any(mark in name + value for name, value in read.headers for mark in "\r\n\0")
