"""The whole system as its callers meet it: real clients, real processes, and an Imburse that accepts each token once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import requests
from botocore.config import Config

from local.api_caller import LocalCaller
from local.demo_clients import Signed
from local.imburse import Imburse
from local.imburse_faults import Fault
from local.serving import in_background
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings
from tests.fakes import secret
from tests.processes import descendants, wait_until

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

EVENTS = Path(__file__).parents[2] / "events"
BIN = Path(sys.executable).parent
CALLERS = 200
TENANT_A = secret(accountId="account-1", tenantId="tenant-a")
ACCOUNT_KEY = secret(accountId="account-1", tenantId=None)


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    roles = {
        name: LocalCaller(name.upper(), f"{name}-secret", f"arn:aws:iam::{ACCOUNT_ID}:role/{name}")
        for name in ("orders", "operators", "stranger")
    }
    settings = StackSettings(
        secrets={"imburse/sandbox/tenant-a": json.dumps(TENANT_A), "imburse/sandbox/account": json.dumps(ACCOUNT_KEY)},
        callers={caller.access_key_id: caller for caller in roles.values()},
        concurrency=4,
    )
    with in_background(LocalStack(settings)) as running:
        yield running


@pytest.fixture
def imburse(stack: LocalStack) -> Iterator[Imburse]:
    assert stack.imburse is not None
    stack.imburse.reset()
    yield stack.imburse
    stack.imburse.reset()


@pytest.fixture(scope="module")
def client(stack: LocalStack) -> LambdaClient:
    config = Config(max_pool_connections=CALLERS, retries={"total_max_attempts": 1}, proxies={})
    session = boto3.Session("local", "local", region_name=REGION)
    return session.client("lambda", endpoint_url=stack.lambda_url, config=config)


def ask(
    stack: LocalStack,
    path: str = "/v1/credentials/sandbox/tenant-a/token",
    *,
    role: str = "orders",
    method: str = "POST",
    **options: Any,
) -> requests.Response:
    auth = Signed(role.upper(), f"{role}-secret", REGION)
    return requests.request(method, stack.api_url + path, auth=auth, timeout=30, **options)


def invoke(client: LambdaClient, event: object, alias: str | None = "settlement-job") -> tuple[str | None, Any]:
    """The function error, if any, and the answer."""
    name = "imburse-vending-vend" + (f":{alias}" if alias else "")
    response = client.invoke(FunctionName=name, Payload=json.dumps(event).encode())
    return response.get("FunctionError"), json.load(response["Payload"])


def use(imburse_url: str, answer: dict[str, Any]) -> int:
    return requests.get(imburse_url + "/v1/identity/me", headers=answer["headers"], timeout=10).status_code


SINGLE = {"credential": "sandbox/tenant-a"}


# Real clients


def test_boto3_gets_a_token_that_imburse_accepts_exactly_once(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    error, answer = invoke(client, SINGLE)
    assert error is None
    assert answer["baseUrl"] == stack.imburse_url
    assert [use(stack.imburse_url, answer) for _ in range(2)] == [200, 401]


def test_a_signed_request_gets_a_token_that_imburse_accepts_exactly_once(stack: LocalStack, imburse: Imburse) -> None:
    response = ask(stack)
    assert response.headers["Cache-Control"] == "no-store"
    assert [use(stack.imburse_url, response.json()) for _ in range(2)] == [200, 401]


def test_the_aws_cli_gets_a_token(stack: LocalStack, imburse: Imburse, tmp_path: Path) -> None:
    answer_file = tmp_path / "answer.json"
    command = [
        str(BIN / "aws"), "lambda", "invoke", "--endpoint-url", stack.lambda_url, "--region", REGION,
        "--function-name", "imburse-vending-vend:settlement-job", "--payload", f"fileb://{EVENTS / 'vend_single.json'}", str(answer_file),
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert use(stack.imburse_url, json.loads(answer_file.read_text())) == 200


def test_awscurl_gets_a_token(stack: LocalStack, imburse: Imburse) -> None:
    command = [
        str(BIN / "awscurl"), "--service", "execute-api", "--region", REGION, "--access_key", "ORDERS", "--secret_key", "orders-secret",
        "-X", "POST", stack.api_url + "/v1/credentials/sandbox/tenant-a/token",
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert use(stack.imburse_url, json.loads(done.stdout)) == 200


def test_an_account_key_is_used_without_a_tenant(stack: LocalStack, client: LambdaClient, imburse: Imburse) -> None:
    error, answer = invoke(client, {"credential": "sandbox/account"}, "access-report")
    assert error is None
    assert set(answer["headers"]) == {"Authorization", "x-account-id"}
    assert use(stack.imburse_url, answer) == 200


def test_an_operator_sees_what_a_key_reaches(stack: LocalStack, imburse: Imburse) -> None:
    answer = ask(stack, "/v1/credentials/sandbox/tenant-a/identity", role="operators", method="GET").json()
    assert [tenant["tenantId"] for tenant in answer["tenants"]] == ["tenant-a"]
    assert "accessToken" not in answer


# Once


def test_200_vends_at_once_by_direct_invoke_give_200_tokens(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda _: invoke(client, SINGLE), range(CALLERS)))
    assert [error for error, _ in answers if error] == []
    check_once(stack, imburse, [answer for _, answer in answers])


def test_200_vends_at_once_by_the_api_give_200_tokens(stack: LocalStack, imburse: Imburse) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        responses = list(pool.map(lambda _: ask(stack), range(CALLERS)))
    assert {response.status_code for response in responses} == {200}
    check_once(stack, imburse, [response.json() for response in responses])


def test_a_batch_of_500_gives_500_tokens(stack: LocalStack, imburse: Imburse) -> None:
    answer = ask(stack, "/v1/credentials/sandbox/tenant-a/tokens", json={"count": 500}).json()
    assert (len(answer["tokens"]), answer["requested"], answer["failures"]) == (500, 500, [])
    check_once(stack, imburse, answer["tokens"])


def check_once(stack: LocalStack, imburse: Imburse, answers: list[dict[str, Any]]) -> None:
    statistics = imburse.statistics
    assert len({answer["accessToken"] for answer in answers}) == len(answers)
    assert statistics.nonces_accepted == statistics.tokens_distinct == len(answers)
    assert statistics.nonces_refused == 0
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda answer: use(stack.imburse_url, answer), answers)) == {200}


# Strangers


@pytest.mark.parametrize("alias", [None, "live", "$LATEST"])
def test_a_direct_invoke_without_an_alias_of_a_caller_gets_nothing(
    client: LambdaClient, imburse: Imburse, alias: str | None
) -> None:
    error, answer = invoke(client, SINGLE, alias)
    assert (error, answer["errorType"]) == ("Unhandled", "NotAuthorized")
    assert json.loads(answer["errorMessage"])["type"] == "urn:imburse-vending:error:not_authorized"
    assert imburse.statistics.exchange_requests == 0


def test_nothing_in_the_event_or_the_client_context_names_a_caller(stack: LocalStack, imburse: Imburse) -> None:
    import base64

    identity = {
        "alias": "settlement-job",
        "caller": "alias/settlement-job",
        "invoked_function_arn": "arn:aws:lambda:x:y:function:z:settlement-job",
    }
    context = base64.b64encode(json.dumps({"custom": identity, "client": identity, "env": identity}).encode()).decode()
    client = boto3.Session("local", "local", region_name=REGION).client("lambda", endpoint_url=stack.lambda_url)
    response = client.invoke(FunctionName="imburse-vending-vend", Payload=json.dumps(SINGLE), ClientContext=context)
    assert json.load(response["Payload"])["errorType"] == "NotAuthorized"
    assert invoke(client, SINGLE | identity, None)[1]["errorType"] == "NotAuthorized"
    assert imburse.statistics.exchange_requests == 0


def test_a_role_that_no_rule_names_gets_nothing(stack: LocalStack, imburse: Imburse) -> None:
    response = ask(stack, role="stranger")
    assert (response.status_code, response.headers["Content-Type"]) == (403, "application/problem+json")
    assert response.json()["type"] == "urn:imburse-vending:error:not_authorized"
    assert imburse.statistics.exchange_requests == 0


def test_a_forged_signature_gets_no_further_than_the_front(stack: LocalStack, imburse: Imburse) -> None:
    url = stack.api_url + "/v1/credentials/sandbox/tenant-a/token"
    assert requests.post(url, auth=Signed("ORDERS", "guessed", REGION), timeout=10).status_code == 403
    assert requests.post(url, timeout=10).status_code == 403
    assert imburse.statistics.exchange_requests == 0


# Hostile requests


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/credentials/sandbox/tenant-a/tokens", {"data": b"{" * 1000}),
        ("/v1/credentials/sandbox/tenant-a/tokens", {"data": b"[" * 200_000}),
        ("/v1/credentials/sandbox/tenant-a/tokens", {"data": b"\xff\xfe\x00"}),
        ("/v1/credentials/sandbox/tenant-a/tokens", {"json": {"count": 501}}),
        ("/v1/credentials/sandbox/tenant-a/tokens", {"json": {"count": 1, "caller": "x"}}),
        ("/v1/credentials/sandbox/tenant-a/tokens", {"data": b" " * 5_000_000}),
        ("/v1/credentials/sandbox/tenant-a/tokens", {"data": b" " * 10_500_000}),
        ("/v1/credentials/sandbox/%2e%2e/token", {}),
        ("/v1/credentials/sandbox/tenant-a%2F..%2Ftenant-b/token", {}),
        ("/v1/credentials/sandbox/ten%C3%A4nt/token", {}),
        ("/v1/credentials/sandbox/tenant-a%00/token", {}),
        ("/v1/credentials/sandbox/tenant-a%0d%0aX-Evil:1/token", {}),
        ("/v1/credentials/sandbox/tenant-a/token?count=5", {}),
        ("/v1/credentials/sandbox/tenant-a/nowhere", {}),
        ("/v1/credentials/SANDBOX/TENANT-A/token", {}),
    ],
)  # fmt: skip
def test_a_hostile_request_gets_a_documented_4xx(
    stack: LocalStack, imburse: Imburse, path: str, options: dict[str, Any]
) -> None:
    response = ask(stack, path, **options)
    assert response.status_code in (400, 403, 413)
    assert "accessToken" not in response.text
    assert "X-Evil" not in response.headers
    assert imburse.statistics.exchange_requests == 0


def test_a_huge_direct_event_is_refused(client: LambdaClient, imburse: Imburse) -> None:
    assert invoke(client, {"credential": "x" * 5_000_000})[1]["errorType"] == "InvalidRequest"
    with pytest.raises(client.exceptions.RequestTooLargeException):
        invoke(client, {"credential": "x" * 10_000_000})


def test_a_deep_direct_event_is_refused(client: LambdaClient, imburse: Imburse) -> None:
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="imburse-vending-vend:settlement-job", Payload=b"[" * 100_000 + b"]" * 100_000)
    error, answer = invoke(client, json.loads('{"a":' * 200 + "1" + "}" * 200))
    assert (error, answer["errorType"]) == ("Unhandled", "InvalidRequest")


# Imburse in trouble, as each caller sees it


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("status", status=503, times=2), None),
        (Fault("status", status=429, retry_after="1", times=1), None),
        (Fault("drop", times=2), None),
        (Fault("drop_mid_body", times=1), None),
        (Fault("latency", seconds=0.3, times=1), None),
        (Fault("clock", seconds=7200), None),
        (Fault("clock", seconds=-7200), None),
        (Fault("status", status=503), "upstream_unavailable"),
        (Fault("status", status=429, retry_after="60"), "upstream_throttled"),
        (Fault("status", status=403), "upstream_rejected"),
        (Fault("drop"), "upstream_unavailable"),
        (Fault("garbage"), "upstream_protocol"),
        (Fault("oversized"), "upstream_protocol"),
        (Fault("redirect"), "upstream_protocol"),
    ],
    ids=str,
)  # fmt: skip
def test_each_fault_is_ridden_out_or_told(
    stack: LocalStack, client: LambdaClient, imburse: Imburse, fault: Fault, code: str | None
) -> None:
    for door in ("api", "invoke"):
        imburse.reset()
        imburse.faults.add(fault)
        answer = ask(stack).json() if door == "api" else invoke(client, SINGLE)[1]
        document = json.loads(answer["errorMessage"]) if "errorMessage" in answer else answer
        assert document.get("type", "").rpartition(":")[2] == (code or "")
        assert imburse.statistics.nonces_refused == 0
        if code is None:
            assert document["accessToken"]


def test_a_revoked_key_is_refused_and_a_new_one_is_picked_up_at_once(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    from local.imburse_keys import ImburseKey

    name = "imburse/sandbox/rotating"
    manager = boto3.Session("local", "local", region_name=REGION).client("secretsmanager", endpoint_url=stack.moto_url)
    old, new = secret(), secret()
    manager.create_secret(Name=name, SecretString=json.dumps(old))
    imburse.keys.add(ImburseKey.from_json(old))
    event = {"credential": "sandbox/rotating"}
    assert invoke(client, event, "access-report")[0] is None

    manager.put_secret_value(SecretId=name, SecretString=json.dumps(new))
    imburse.keys.add(ImburseKey.from_json(new))
    imburse.keys.revoke(old["publicKey"])
    error, answer = invoke(client, event, "access-report")
    assert error is None, answer


# A function that dies


def test_a_killed_environment_costs_no_more_than_its_own_vend(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    assert invoke(client, SINGLE)[0] is None
    functions = [
        pid for pid in descendants(os.getpid()) if b"handlers.vend.handler" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert functions
    for pid in functions:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: invoke(client, SINGLE)[0] is None, "vending goes on in a new environment")


# The record


def records(stack: LocalStack) -> list[dict[str, Any]]:
    texts: Callable[[], list[str]] = lambda: [line.text for line in stack.log_lines()]  # noqa: E731
    return [json.loads(text) for text in texts() if text.startswith('{"event": "audit"')]


def test_every_answer_left_one_record_and_no_output_holds_a_secret(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    before = len(records(stack))
    _, vended = invoke(client, SINGLE)
    ask(stack, role="stranger")
    new = records(stack)[before:]
    assert [record["outcome"] for record in new] == ["vended", "refused"]
    output = "\n".join(line.text for line in stack.log_lines())
    for value in (vended["accessToken"], TENANT_A["privateKey"], ACCOUNT_KEY["privateKey"], "Hmac ", "Bearer "):
        assert value not in output


def test_the_access_report_runs_on_its_schedule_and_reaches_what_it_may(stack: LocalStack, imburse: Imburse) -> None:
    fired = requests.post(f"{stack.lambda_url}/local/schedules/imburse-vending-access-report", timeout=30)
    body = fired.json()
    reached = body.get("reached") or json.loads(body["errorMessage"])["reached"]
    assert {"sandbox/tenant-a", "sandbox/account"} <= set(reached)
