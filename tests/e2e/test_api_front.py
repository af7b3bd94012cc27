"""The API front over HTTP with real clients: botocore with requests, and awscurl. The function behind it is a fake."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.api_front import LocalCaller, api_front
from local.lambda_host import InvokeResult
from local.serving import bind, in_background, serving
from local.template import Route

CALLER = LocalCaller("AKIAORDERS", "a secret of the tests", "arn:aws:iam::123456789012:role/team/orders")
TOKEN = "/v1/credentials/sandbox/tenant-a/token"
ROUTES = (
    Route("POST", "/v1/credentials/{environment}/{name}/token", "ApiFunction", "live"),
    Route("GET", "/v1/credentials/{environment}/{name}/identity", "ApiFunction", "live"),
)


@dataclass
class Function:
    """A function that remembers its events and answers what it is told to."""

    answer: dict[str, Any] | bytes = field(default_factory=lambda: {"statusCode": 200, "body": '{"ok": true}'})
    error: str | None = None
    seconds: float = 0
    calls: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)

    async def invoke(self, function: str, qualifier: str | None, payload: bytes) -> InvokeResult:
        self.calls.append((function, qualifier, json.loads(payload)))
        await asyncio.sleep(self.seconds)
        answer = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return InvokeResult(answer, self.error, "an-invocation", "1")

    @property
    def event(self) -> dict[str, Any]:
        return self.calls[-1][2]


@pytest.fixture
def function() -> Function:
    return Function()


@pytest.fixture
def url(function: Function) -> Iterator[str]:
    app = api_front(
        ROUTES,
        function.invoke,
        {CALLER.access_key_id: CALLER},
        account_id="123456789012",
        region="eu-west-1",
        timeout_seconds=0.5,
    )
    with in_background(serving(app, bind(0))) as address:
        yield address


class SigV4(requests.auth.AuthBase):
    """What a microservice uses: botocore's signer over the request as requests will send it."""

    def __init__(
        self, secret: str = CALLER.secret_access_key, key_id: str = CALLER.access_key_id, **options: str
    ) -> None:
        self._credentials = Credentials(key_id, secret, options.get("token"))
        self._region = options.get("region", "eu-west-1")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        aws_request = AWSRequest(request.method, request.url, headers=signed, data=request.body)
        SigV4Auth(self._credentials, "execute-api", self._region).add_auth(aws_request)
        request.headers.update(dict(aws_request.headers.items()))
        return request


def call(url: str, path: str = TOKEN, *, method: str = "POST", **options: Any) -> requests.Response:
    return requests.request(method, url + path, auth=options.pop("auth", SigV4()), timeout=10, **options)


def send(url: str, alter: Callable[[requests.PreparedRequest], None]) -> requests.Response:
    """Sign a request, alter it, send it."""
    request = requests.Request("POST", f"{url}{TOKEN}?a=1", data=b'{"count": 5}', auth=SigV4()).prepare()
    alter(request)
    return requests.Session().send(request, timeout=10)


def refusal(response: requests.Response) -> tuple[int, str]:
    assert response.headers["x-amzn-RequestId"]
    assert set(response.json()) == {"message"}
    return response.status_code, response.headers["x-amzn-ErrorType"]


def test_a_signed_request_reaches_the_function_as_a_proxy_event(url: str, function: Function) -> None:
    answer = call(url, data=b'{"count": 5}', headers={"X-Correlation-ID": "mine"})

    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert answer.headers["Content-Type"] == "application/json"
    assert function.calls[0][:2] == ("ApiFunction", "live")
    event = function.event
    assert event["resource"] == "/v1/credentials/{environment}/{name}/token"
    assert event["pathParameters"] == {"environment": "sandbox", "name": "tenant-a"}
    assert event["body"] == '{"count": 5}'
    assert event["headers"]["X-Correlation-ID"] == "mine"
    assert answer.headers["x-amzn-RequestId"] == event["requestContext"]["requestId"]
    identity = event["requestContext"]["identity"]
    assert identity["userArn"] == "arn:aws:sts::123456789012:assumed-role/orders/local-AKIAORDERS"
    assert identity["sourceIp"] == "127.0.0.1"


@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1"])
@pytest.mark.parametrize("token", ["", "a-session-token"])
def test_any_region_and_a_session_token_are_accepted(url: str, region: str, token: str) -> None:
    assert call(url, auth=SigV4(region=region, token=token)).status_code == 200


@pytest.mark.parametrize(
    ("name", "decoded"),
    [
        ("tenant%20a", "tenant a"),
        ("a%2Fb", "a/b"),
        ("%2E%2E", ".."),
        ("a+b", "a+b"),
        ("%E6%9D%B1%E4%BA%AC", "東京"),
        ("a~b_c.d-e", "a~b_c.d-e"),
        ("a:b@c!$&'()*,;=", "a:b@c!$&'()*,;="),
        ("%25", "%"),
        ("%00", "\0"),
    ],
)
def test_paths_are_verified_as_they_are_signed_and_handed_on_decoded(
    url: str, function: Function, name: str, decoded: str
) -> None:
    assert call(url, f"/v1/credentials/sandbox/{name}/token").status_code == 200
    assert function.event["pathParameters"]["name"] == decoded


def test_a_query_with_repeats_spaces_and_unicode_is_verified(url: str, function: Function) -> None:
    answer = call(url, params=[("b", "2"), ("a", "é b"), ("a", "1"), ("c", "")])

    assert answer.status_code == 200
    assert function.event["multiValueQueryStringParameters"] == {"b": ["2"], "a": ["é b", "1"], "c": [""]}


def _set(name: str, value: str) -> Callable[[requests.PreparedRequest], None]:
    return lambda request: request.headers.update({name: value})


def _change(attribute: str, old: str, new: str) -> Callable[[requests.PreparedRequest], None]:
    def alter(request: requests.PreparedRequest) -> None:
        value = getattr(request, attribute)
        setattr(
            request,
            attribute,
            value.replace(*(word if isinstance(value, str) else word.encode() for word in (old, new))),
        )

    return alter


def _later(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y%m%dT%H%M%SZ")


@pytest.mark.parametrize(
    ("alter", "error_type"),
    [
        (_change("body", "5", "6"), "InvalidSignatureException"),
        (_change("url", "a=1", "a=2"), "InvalidSignatureException"),
        (_change("url", "tenant-a", "tenant-b"), "InvalidSignatureException"),
        (_set("Content-Type", "text/plain"), "InvalidSignatureException"),
        (_set("Host", "api.example.com"), "InvalidSignatureException"),
        (_set("X-Amz-Date", _later(1)), "InvalidSignatureException"),
        (_set("X-Amz-Date", _later(-6)), "InvalidSignatureException"),
        (_set("X-Amz-Date", "now"), "IncompleteSignatureException"),
        (lambda request: request.headers.pop("X-Amz-Date"), "IncompleteSignatureException"),
        (_set("Authorization", "Bearer something"), "IncompleteSignatureException"),
        (lambda request: request.headers.pop("Authorization"), "MissingAuthenticationTokenException"),
    ],
)
def test_what_was_altered_after_signing_is_refused(
    url: str, function: Function, alter: Callable[[requests.PreparedRequest], None], error_type: str
) -> None:
    assert refusal(send(url, alter)) == (403, error_type)
    assert function.calls == []


def test_a_stranger_is_refused_in_the_words_of_api_gateway(url: str, function: Function) -> None:
    unsigned = requests.post(url + TOKEN, timeout=10)
    assert refusal(unsigned) == (403, "MissingAuthenticationTokenException")
    assert unsigned.json() == {"message": "Missing Authentication Token"}

    unknown = call(url, auth=SigV4(key_id="AKIASTRANGER"))
    assert refusal(unknown) == (403, "UnrecognizedClientException")
    assert unknown.json() == {"message": "The security token included in the request is invalid."}

    forged = call(url, auth=SigV4("a secret that was guessed"))
    assert refusal(forged) == (403, "InvalidSignatureException")
    assert forged.json()["message"].startswith("The request signature we calculated does not match")
    assert function.calls == []


@pytest.mark.parametrize(("method", "path"), [("GET", TOKEN), ("POST", "/"), ("POST", "/v2"), ("DELETE", TOKEN + "/x")])
def test_an_unknown_route_looks_like_a_missing_token_even_when_signed(url: str, method: str, path: str) -> None:
    answer = call(url, path, method=method)
    assert refusal(answer) == (403, "MissingAuthenticationTokenException")
    assert answer.json() == {"message": "Missing Authentication Token"}


@pytest.mark.parametrize("size_bytes", [10 * 1024 * 1024 + 1, 7 * 1024 * 1024])
def test_a_payload_over_the_limit_of_the_api_or_of_lambda_is_too_large(
    url: str, function: Function, size_bytes: int
) -> None:
    answer = call(url, data=b"x" * size_bytes)

    assert answer.status_code == 413
    assert answer.json() == {"message": "Request Entity Too Large"}
    assert function.calls == []


def test_a_large_payload_below_both_limits_arrives_whole(url: str, function: Function) -> None:
    assert call(url, data=b"x" * (5 * 1024 * 1024)).status_code == 200
    assert len(function.event["body"]) == 5 * 1024 * 1024


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"errorType": "KeyError", "errorMessage": "'x'"}, "Unhandled"),
        ({"body": "no status"}, None),
        ({"statusCode": 200, "body": {}}, None),
        ({"statusCode": 200, "headers": {"X-Bad": "a\r\nSet-Cookie: b"}}, None),
        (b"not json", None),
        (b"null", None),
    ],
)
def test_a_function_that_fails_or_answers_nonsense_is_a_bad_gateway(
    url: str, function: Function, answer: dict[str, Any] | bytes, error: str | None
) -> None:
    function.answer, function.error = answer, error
    response = call(url)

    assert refusal(response) == (502, "InternalServerErrorException")
    assert response.json() == {"message": "Internal server error"}
    assert "Set-Cookie" not in response.headers


def test_a_function_that_takes_too_long_is_a_gateway_timeout(url: str, function: Function) -> None:
    function.seconds = 30
    response = call(url)

    assert (response.status_code, response.json()) == (504, {"message": "Endpoint request timed out"})


def test_status_headers_and_body_of_the_answer_are_the_functions(url: str, function: Function) -> None:
    function.answer = {
        "statusCode": 409,
        "headers": {"Content-Type": "application/problem+json", "Cache-Control": "no-store"},
        "multiValueHeaders": {"X-Many": ["1", "2"]},
        "body": "é",
    }
    response = call(url)

    assert (response.status_code, response.content) == (409, "é".encode())
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Many"] == "1, 2"


def awscurl(url: str, *arguments: str, secret: str = CALLER.secret_access_key) -> subprocess.CompletedProcess[str]:
    credentials = ("--access_key", CALLER.access_key_id, "--secret_key", secret)
    command = [
        str(Path(sys.executable).with_name("awscurl")),
        "--service",
        "execute-api",
        *credentials,
        *arguments,
        url,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_awscurl_gets_through(url: str, function: Function) -> None:
    done = awscurl(f"{url}{TOKEN}?b=2&a=1", "-X", "POST", "-d", '{"count": 5}', "--region", "eu-west-1")

    assert (done.returncode, json.loads(done.stdout)) == (0, {"ok": True}), done.stderr
    assert function.event["body"] == '{"count": 5}'
    assert function.event["queryStringParameters"] == {"a": "1", "b": "2"}


def test_awscurl_with_encoded_path_and_session_token_gets_through(url: str, function: Function) -> None:
    path = "/v1/credentials/sandbox/tenant%20a/identity"
    done = awscurl(url + path, "-X", "GET", "--region", "us-east-1", "--session_token", "a-session-token")

    assert (done.returncode, json.loads(done.stdout)) == (0, {"ok": True}), done.stderr
    assert function.event["pathParameters"]["name"] == "tenant a"


def test_awscurl_with_a_wrong_secret_is_refused(url: str, function: Function) -> None:
    done = awscurl(url + TOKEN, "-X", "POST", "--region", "eu-west-1", "--fail-with-body", secret="guessed")

    assert "does not match the signature you provided" in done.stdout
    assert function.calls == []


def test_two_hundred_callers_at_once_are_all_answered(url: str, function: Function) -> None:
    with ThreadPoolExecutor(32) as pool:
        statuses = list(pool.map(lambda _: call(url).status_code, range(200)))

    assert statuses == [200] * 200
    assert len({event["requestContext"]["requestId"] for _, _, event in function.calls}) == 200
