"""The three ways to a token: each refusal told by its code, each way to fail bounded, no word of a stranger repeated."""

from __future__ import annotations

import io
import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import urllib3
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, NoRegionError, ReadTimeoutError

from imburse_auth import ApiKey
from imburse_auth.client import ApiSource, InvokeSource, KeySource, VendingFailed, api_source, source_from_env
from tests.client_wire import CREDENTIAL, Sent, Wire, answer, reply
from tests.fakes import BASE_URL, Clock, FakeImburse, aws_error, secret

API = "https://abc.execute-api.eu-west-1.amazonaws.com/dev"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:imburse-vending-vend:settlement-job"
SECRET_TEXT = "SECRET-of-a-proxy"


def problem(code: str, status: int, **more: Any) -> dict[str, Any]:
    return {
        "type": f"urn:imburse-vending:error:{code}",
        "title": "...",
        "status": status,
        "detail": f"detail of {code}",
        "requestId": "req-1",
        **more,
    }


class Api:
    """An ApiSource whose requests end on a wire."""

    def __init__(self, *script: Any, **options: Any) -> None:
        self.wire = Wire(list(script))
        self.clock = Clock(0)
        session = options.pop("session", boto3.Session("AKID", "secret-access-key", region_name="eu-west-1"))
        self.source = ApiSource(API, session=session, monotonic=self.clock, sleep=self.clock.sleep, **options)
        self.wire.mount(self.source._http.get())

    def fails(self, count: int = 1) -> VendingFailed:
        with pytest.raises(VendingFailed) as caught:
            self.source.tokens(CREDENTIAL, count)
        return caught.value


class Lambda:
    """boto3's Lambda client: each invoke plays the next of the script, an answer or an exception."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.events: list[Any] = []

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's
        assert FunctionName == FUNCTION
        self.events.append(json.loads(Payload))
        play = self.script.pop(0)
        if isinstance(play, Exception):
            raise play
        return play  # type: ignore[no-any-return]


def invoked(payload: Any, error: str | None = None) -> dict[str, Any]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    response = {"StatusCode": 200, "Payload": io.BytesIO(body)}
    return {**response, "FunctionError": error} if error else response


def raised(code: str, status: int, **more: Any) -> dict[str, Any]:
    message = json.dumps(problem(code, status, **more))
    return invoked({"errorType": "SomeClass", "errorMessage": message}, "Unhandled")


def invoke_source(client: Lambda, **options: Any) -> InvokeSource:
    clock = Clock(0)
    return InvokeSource(FUNCTION, client=client, monotonic=clock, sleep=clock.sleep, **options)  # type: ignore[arg-type]


def invoke_fails(*script: Any) -> VendingFailed:
    with pytest.raises(VendingFailed) as caught:
        invoke_source(Lambda(*script)).tokens(CREDENTIAL)
    return caught.value


# By the API


def test_a_single_token_is_asked_for_by_a_signed_request() -> None:
    api = Api(reply(200, answer()))
    [vended] = api.source.tokens(CREDENTIAL, minimum_lifetime_seconds=600)
    [sent] = api.wire.sent
    assert (vended.access_token, vended.base_url, vended.credential) == ("token-1", BASE_URL, CREDENTIAL)
    assert (sent.method, sent.url) == ("POST", API + "/v1/credentials/sandbox/tenant-a/token")
    assert json.loads(sent.body) == {"minimumLifetimeSeconds": 600}
    assert "/eu-west-1/execute-api/aws4_request" in sent.headers["Authorization"]
    assert all(seconds > 0 for seconds in api.wire.options[0]["timeout"])


def test_a_batch_is_used_as_it_came() -> None:
    document = {"tokens": [answer(1), answer(2)], "requested": 5, "failures": [{"count": 3, "type": "..."}]}
    api = Api(reply(200, document))
    assert [vended.access_token for vended in api.source.tokens(CREDENTIAL, 5)] == ["token-1", "token-2"]
    assert api.wire.sent[0].url.endswith("/tokens")
    assert json.loads(api.wire.sent[0].body) == {"count": 5, "minimumLifetimeSeconds": 300}


def test_the_identity_is_asked_for_without_a_body() -> None:
    found = {"credential": CREDENTIAL, "accounts": [], "tenants": []}
    api = Api(reply(200, found))
    assert api.source.identity(CREDENTIAL) == found
    assert (api.wire.sent[0].method, api.wire.sent[0].body) == ("GET", b"")


def test_the_region_given_wins_over_the_sessions() -> None:
    api = Api(reply(200, answer()), region="us-east-1")
    api.source.tokens(CREDENTIAL)
    assert "/us-east-1/execute-api/" in api.wire.sent[0].headers["Authorization"]


def test_a_roles_credentials_are_refreshed_for_the_request_that_needs_it() -> None:
    number = iter(range(1, 10))

    def fetch() -> dict[str, str]:
        soon = datetime.now(UTC) + timedelta(minutes=1)
        name = f"AKID{next(number)}"
        return {"access_key": name, "secret_key": "s", "token": f"session-{name}", "expiry_time": soon.isoformat()}

    session = boto3.Session(region_name="eu-west-1")
    session._session._credentials = RefreshableCredentials.create_from_metadata(fetch(), fetch, "test")  # type: ignore[attr-defined]
    api = Api(reply(200, answer(1)), reply(200, answer(2)), session=session)
    api.source.tokens(CREDENTIAL)
    api.source.tokens(CREDENTIAL)
    first, second = (sent.headers["X-Amz-Security-Token"] for sent in api.wire.sent)
    assert first != second


@pytest.mark.parametrize(
    ("code", "status"),
    [("invalid_request", 400), ("not_authorized", 403), ("credential_not_found", 404), ("upstream_rejected", 502), ("internal_error", 500)],
)  # fmt: skip
def test_what_is_pointless_to_repeat_is_told_at_once(code: str, status: int) -> None:
    upstream = {"status": 401, "errorCode": "API_KEY_REVOKED", "correlationId": "c-1", "more": "x"}
    api = Api(reply(status, problem(code, status, upstream=upstream)))
    failure = api.fails()
    assert (failure.code, failure.status, failure.detail) == (code, status, f"detail of {code}")
    assert (failure.retryable, failure.request_id) == (False, "req-1")
    assert failure.upstream == {"status": 401, "errorCode": "API_KEY_REVOKED", "correlationId": "c-1"}
    assert len(api.wire.sent) == 1
    assert str(failure) == f"{code}: detail of {code} (request req-1)"


@pytest.mark.parametrize(("code", "status"), [("over_budget", 429), ("upstream_unavailable", 503)])
def test_what_passes_is_waited_for_as_long_as_it_says_and_signed_anew(code: str, status: int) -> None:
    api = Api(reply(status, problem(code, status), Retry_After="4"), reply(200, answer()))
    assert api.source.tokens(CREDENTIAL)
    assert api.clock.slept == [pytest.approx(4, abs=0.4)]
    assert len(api.wire.sent) == 2


def test_patience_ends_before_a_wait_that_it_does_not_cover() -> None:
    api = Api(*[reply(503, problem("audit_unavailable", 503), Retry_After="4")] * 9)
    failure = api.fails()
    assert (failure.code, failure.retryable, failure.retry_after_seconds) == ("audit_unavailable", True, 4)
    assert api.clock.now < 10
    assert len(api.wire.sent) == 3


def test_no_patience_is_one_try() -> None:
    api = Api(reply(503, problem("audit_unavailable", 503)), patience_seconds=0)
    assert api.fails().status == 503
    assert len(api.wire.sent) == 1


def test_without_retry_after_the_tries_are_bounded_too() -> None:
    api = Api(*[reply(503, problem("audit_unavailable", 503))] * 1000)
    api.fails()
    assert 2 < len(api.wire.sent) < 200
    assert api.clock.now < 10


@pytest.mark.parametrize(
    ("status", "kind", "code", "hint"),
    [
        (403, "MissingAuthenticationTokenException", "refused_by_aws", "VENDING_API"),
        (403, "InvalidSignatureException:http://internal.amazon.com/", "refused_by_aws", "clock"),
        (403, "ExpiredTokenException", "refused_by_aws", "expired"),
        (403, "AccessDeniedException", "refused_by_aws", "ApiCallerPolicy"),
        (504, "InternalServerErrorException", "failed_in_aws", "in time"),
    ],
)
def test_api_gateways_own_refusal_is_told_apart_with_a_hint(status: int, kind: str, code: str, hint: str) -> None:
    api = Api(reply(status, {"message": SECRET_TEXT}, x_amzn_ErrorType=kind, x_amzn_RequestId="gw-1"))
    failure = api.fails()
    assert (failure.code, failure.status, failure.request_id) == (code, status, "gw-1")
    assert hint in failure.detail
    assert SECRET_TEXT not in str(failure)
    assert len(api.wire.sent) == 1


def test_api_gateways_throttle_is_waited_for() -> None:
    api = Api(
        reply(429, {"message": "Too Many Requests"}, x_amzn_ErrorType="TooManyRequestsException"), reply(200, answer())
    )
    assert api.source.tokens(CREDENTIAL)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, f"<html>{SECRET_TEXT}</html>".encode()),
        (200, b""),
        (200, b"[" * 100_000),
        (200, b"\xff\xfe"),
        (200, json.dumps(SECRET_TEXT).encode()),
        (200, json.dumps({"message": SECRET_TEXT}).encode()),
        (204, b""),
        (302, SECRET_TEXT.encode()),
        (403, f"<html>{SECRET_TEXT}</html>".encode()),
        (407, SECRET_TEXT.encode()),
        (502, SECRET_TEXT.encode()),
        (503, SECRET_TEXT.encode()),
        (403, json.dumps({"type": "about:blank", "status": 403, "detail": SECRET_TEXT}).encode()),
        (403, json.dumps(problem("not_authorized", 200)).encode()),
    ],
    ids=range(14),
)
def test_an_answer_of_a_stranger_is_unexpected_and_not_repeated(status: int, body: bytes) -> None:
    api = Api(reply(status, body, Location=API))
    failure = api.fails()
    assert (failure.code, failure.retryable) == ("unexpected_answer", False)
    assert SECRET_TEXT not in str(failure) + repr(failure) + str(failure.__context__)
    assert len(api.wire.sent) == 1


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    class Endless(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            return b"x" * (size or 1)

    response = requests.Response()
    response.raw = urllib3.HTTPResponse(Endless(), preload_content=False)
    with pytest.raises(VendingFailed, match="6 MB"):
        api_source._body(response)


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (answer(credential="sandbox/tenant-b"), 1),
        ({"tokens": []}, 2),
        ({"tokens": [answer(1), answer(2), answer(3)]}, 2),
        ({"tokens": [answer(1), answer(1)]}, 2),
        ({"tokens": [answer(1), answer(2, credential="sandbox/tenant-b")]}, 2),
        ({"tokens": {}}, 2),
        (answer(), 2),
    ],
)
def test_tokens_that_were_not_asked_for_are_not_used(document: Any, count: int) -> None:
    failure = Api(reply(200, document)).fails(count)
    assert failure.code == "unexpected_answer"
    assert "token-" not in str(failure)


@pytest.mark.parametrize("error", [requests.ConnectionError, requests.Timeout, requests.exceptions.SSLError])
def test_no_answer_is_told_without_the_signature(error: type[Exception]) -> None:
    def no_answer(sent: Sent) -> Any:
        raise error(sent.headers["Authorization"])

    api = Api(*[no_answer] * 1000)
    failure = api.fails()
    assert (failure.code, failure.status, failure.retryable) == ("unreachable", 0, True)
    assert "abc.execute-api.eu-west-1.amazonaws.com" in failure.detail
    assert "AWS4" not in str(failure)
    assert failure.__cause__ is None
    assert failure.__suppress_context__
    assert len(api.wire.sent) > 1


def test_a_connection_that_comes_back_is_used() -> None:
    def broken(_: Sent) -> Any:
        raise requests.ConnectionError

    api = Api(broken, reply(200, answer()))
    assert api.source.tokens(CREDENTIAL)


def test_without_credentials_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    session = boto3.Session(region_name="eu-west-1")
    monkeypatch.setattr(session, "get_credentials", lambda: None)
    api = Api(session=session)
    assert api.fails().code == "no_aws_credentials"
    assert api.wire.sent == []


def test_without_a_region_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    session = boto3.Session("AKID", "secret")
    monkeypatch.setattr(session._session, "get_config_variable", lambda *_, **__: None)
    failure = Api(session=session).fails()
    assert (failure.code, "AWS_REGION" in failure.detail) == ("no_aws_credentials", True)


def test_a_region_may_be_in_aws_region_which_botocore_does_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    api = Api(reply(200, answer()), session=boto3.Session("AKID", "secret"))
    api.source.tokens(CREDENTIAL)
    assert "/eu-north-1/execute-api/" in api.wire.sent[0].headers["Authorization"]
    source = InvokeSource("vend:job", session=boto3.Session("AKID", "secret"))
    assert source._client.get().meta.region_name == "eu-north-1"


def test_the_environment_does_not_decide_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password word\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test")
    api = Api(reply(200, answer()))
    api.source.tokens(CREDENTIAL)
    assert api.wire.sent[0].headers["Authorization"].startswith("AWS4-HMAC-SHA256 ")
    assert not api.wire.options[0]["proxies"]


@pytest.mark.parametrize("credential", ["sandbox/../../control", "sandbox/a?b", "sandbox", "sandbox/a/token"])
def test_no_credential_leads_to_another_path(credential: str) -> None:
    api = Api()
    with pytest.raises(ValueError, match="credential"):
        api.source.tokens(credential)
    assert api.wire.sent == []


@pytest.mark.parametrize("url", ["http://api.test/dev", "ftp://api.test", "api.test", "https://user@api.test"])
def test_an_api_that_is_not_https_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        ApiSource(url)


# By direct invoke


def test_an_invoke_asks_for_what_it_wants_and_no_more() -> None:
    client = Lambda(invoked(answer()), invoked({"tokens": [answer(2), answer(3)]}))
    source = invoke_source(client)
    assert source.tokens(CREDENTIAL)[0].access_token == "token-1"
    assert len(source.tokens(CREDENTIAL, 4, minimum_lifetime_seconds=0)) == 2
    assert client.events == [
        {"credential": CREDENTIAL, "minimumLifetimeSeconds": 300},
        {"credential": CREDENTIAL, "minimumLifetimeSeconds": 0, "count": 4},
    ]


def test_a_proof_is_made_anew_for_each_try() -> None:
    numbers = iter([1, 2])
    client = Lambda(raised("upstream_unavailable", 503), invoked(answer()))
    invoke_source(client, proof=lambda: {"n": next(numbers)}).tokens(CREDENTIAL)
    assert [event["proof"] for event in client.events] == [{"n": 1}, {"n": 2}]


def test_a_proof_that_finds_no_credentials_is_told_as_such() -> None:
    def proof() -> object:
        raise LookupError("no AWS credentials")

    client = Lambda()
    with pytest.raises(VendingFailed) as caught:
        invoke_source(client, proof=proof).tokens(CREDENTIAL)
    assert (caught.value.code, client.events) == ("no_aws_credentials", [])


def test_what_the_function_raises_is_told_by_its_code() -> None:
    failure = invoke_fails(raised("not_authorized", 403))
    assert (failure.code, failure.status, failure.request_id) == ("not_authorized", 403, "req-1")


def test_what_the_function_says_passes_is_waited_for() -> None:
    client = Lambda(raised("over_budget", 429, retryAfter=3), raised("over_budget", 429, retryAfter=60))
    with pytest.raises(VendingFailed) as caught:
        invoke_source(client).tokens(CREDENTIAL)
    assert caught.value.retry_after_seconds == 60
    assert len(client.events) == 2


@pytest.mark.parametrize(
    "payload",
    [
        {"errorType": "Sandbox.Timedout", "errorMessage": f"Task timed out {SECRET_TEXT}"},
        {"errorType": "Runtime.ExitError"},
        {"errorType": SECRET_TEXT * 5, "errorMessage": json.dumps({"type": "other", "detail": SECRET_TEXT})},
        SECRET_TEXT,
        SECRET_TEXT.encode(),
    ],
)
def test_a_function_that_broke_down_is_told_in_our_words(payload: Any) -> None:
    failure = invoke_fails(invoked(payload, "Unhandled"))
    assert (failure.code, failure.status) == ("failed_in_aws", 502)
    assert SECRET_TEXT not in str(failure)


@pytest.mark.parametrize("payload", [b"<html>", b"", b"x" * (6 * 1024 * 1024 + 1), b"null", b'"text"'])
def test_an_invoke_that_answers_no_token_is_unexpected(payload: bytes) -> None:
    assert invoke_fails(invoked(payload)).code == "unexpected_answer"


@pytest.mark.parametrize(
    ("error", "code", "tries"),
    [
        (aws_error("AccessDeniedException", 403), "refused_by_aws", 1),
        (aws_error("ResourceNotFoundException", 404), "refused_by_aws", 1),
        (aws_error("ServiceException", 500), "failed_in_aws", 1),
        (aws_error("TooManyRequestsException", 429), "throttled_by_aws", 2),
        (EndpointConnectionError(endpoint_url="https://lambda"), "unreachable", 2),
        (ReadTimeoutError(endpoint_url="https://lambda"), "unreachable", 2),
        (OSError("reset"), "unreachable", 2),
        (NoCredentialsError(), "no_aws_credentials", 1),
        (NoRegionError(), "no_aws_credentials", 1),
    ],
)
def test_each_way_that_an_invoke_fails_has_its_code(error: Exception, code: str, tries: int) -> None:
    client = Lambda(*[error] * 1000)
    with pytest.raises(VendingFailed) as caught:
        invoke_source(client).tokens(CREDENTIAL)
    assert caught.value.code == code
    assert min(len(client.events), 2) == tries


def test_the_client_it_makes_tries_once_in_the_functions_region(monkeypatch: pytest.MonkeyPatch) -> None:
    session = boto3.Session("AKID", "secret", region_name="us-east-1")
    client = InvokeSource(FUNCTION, session=session)._client.get()
    assert client.meta.region_name == "eu-west-1"
    assert client.meta.config.retries["total_max_attempts"] == 1  # type: ignore[attr-defined]
    assert client.meta.config.read_timeout == 35  # type: ignore[attr-defined]


# With a key


def key_source(clock: Clock | None = None) -> tuple[KeySource, FakeImburse]:
    clock = clock or Clock()
    imburse, members = FakeImburse(clock), secret()
    imburse.accept(members)
    api_key = ApiKey.from_secret(json.dumps(members))
    return KeySource(api_key, BASE_URL, transport=imburse.transport(), clock=clock), imburse


def test_a_key_gives_as_many_tokens_as_are_asked_for() -> None:
    source, imburse = key_source()
    tokens = source.tokens(CREDENTIAL, 3)
    assert {vended.access_token for vended in tokens} == set(imburse.tokens)
    assert (tokens[0].base_url, tokens[0].expires_in) == (BASE_URL, 1800)
    assert tokens[0].headers == {
        "Authorization": f"Bearer {tokens[0].access_token}",
        "x-account-id": "account-1",
        "x-tenant-id": "tenant-a",
    }


def test_a_key_that_is_refused_midway_leaves_what_came() -> None:
    source, imburse = key_source()
    imburse.script = [imburse.obey, lambda _: imburse.refuse(403)]
    assert len(source.tokens(CREDENTIAL, 3)) == 1


def test_a_refused_key_is_told_with_what_imburse_said() -> None:
    source, imburse = key_source()
    imburse.always = lambda _: imburse.refuse(401, "API_KEY_REVOKED")
    with pytest.raises(VendingFailed) as caught:
        source.tokens(CREDENTIAL)
    assert (caught.value.code, caught.value.status) == ("upstream_rejected", 502)
    assert caught.value.upstream is not None
    assert caught.value.upstream["errorCode"] == "API_KEY_REVOKED"


# From the environment


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({"VENDING_API": API}, ApiSource),
        ({"VENDING_API": API, "VENDING_FUNCTION": FUNCTION}, ApiSource),
        ({"VENDING_API": "", "VENDING_FUNCTION": FUNCTION}, InvokeSource),
    ],
)
def test_the_environment_names_the_source(environ: dict[str, str], kind: type) -> None:
    assert isinstance(source_from_env(environ), kind)
    assert isinstance(source_from_env(environ, session=boto3.Session(region_name="eu-west-1")), kind)


def test_an_environment_that_names_none_is_told_both_names() -> None:
    with pytest.raises(ValueError, match="VENDING_API or VENDING_FUNCTION"):
        source_from_env({})


# The error itself


def test_the_error_goes_through_a_pickle_whole() -> None:
    failure = VendingFailed("over_budget", "spent", status=429, retryable=True, retry_after_seconds=7, request_id="r")
    copy = pickle.loads(pickle.dumps(failure))
    assert (str(copy), vars(copy)) == (str(failure), vars(failure))


def test_a_source_shows_no_secret() -> None:
    source = ApiSource(API, session=boto3.Session("AKID", "secret-access-key", region_name="eu-west-1"))
    assert "secret-access-key" not in repr(source) + str(vars(source))
