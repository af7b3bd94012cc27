"""`python -m local serve` as a user starts it: READY when all is ready, clear words when it cannot be, nothing left behind."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import requests
from botocore.config import Config

from local.demo_clients import Signed
from local.imburse import Imburse, ImburseKey
from local.serving import bind, in_background
from local.serving import serving as serving_app
from local.stack import LocalStack, StackSettings
from tests.processes import descendants, is_running, wait_until

_READY = re.compile(r"READY api=(http://127\.0\.0\.1:\d+) lambda=(http://127\.0\.0\.1:\d+)\n")


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "API_PORT": "0", "LAMBDA_PORT": "0", "LOG_FILE": os.devnull, **variables}


@contextmanager
def serving(**variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "local", "serve"]
    process = subprocess.Popen(
        command, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The URLs of the API and of the Lambda API."""
    assert process.stdout is not None
    match = _READY.fullmatch(process.stdout.readline())
    assert match
    return match[1], match[2]


def failing(**variables: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "local", "serve"]
    done = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_is_ready_and_vends_and_an_interrupt_ends_it_with_all_it_started(end: signal.Signals) -> None:
    with serving() as process:
        api_url, lambda_url = ready(process)
        children = descendants(process.pid)
        assert len(children) >= 5  # the guard, moto and one process a function
        client = boto3.client(
            "lambda",
            "eu-west-1",
            endpoint_url=lambda_url,
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(proxies={}),
        )
        event = json.dumps({"credential": "sandbox/tenant-a"})
        answer = client.invoke(FunctionName="imburse-vending-vend:settlement-job", Payload=event)
        assert json.loads(answer["Payload"].read())["tokenType"] == "Bearer"
        assert requests.post(f"{api_url}/v1/credentials/sandbox/tenant-a/token", timeout=10).status_code == 403
        process.send_signal(end)
        assert process.wait(timeout=10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert not any(map(is_running, children))


def test_nothing_is_left_when_it_is_killed() -> None:
    with serving() as process:
        ready(process)
        children = descendants(process.pid)
        process.kill()
        process.wait(timeout=10)
        wait_until(lambda: not any(map(is_running, children)), "all it started is gone")


def test_an_interrupt_while_it_starts_ends_it_too() -> None:
    with serving() as process:
        wait_until(lambda: len(descendants(process.pid)) >= 2, "the guard and moto are started")
        children = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        wait_until(lambda: not any(map(is_running, children)), "all it started is gone")


def test_a_policy_of_ones_own_decides(tmp_path: Path) -> None:
    policy = tmp_path / "nobody.cedar"
    policy.write_text("// nobody may do anything\n")
    with serving(POLICY=str(policy)) as process:
        _, lambda_url = ready(process)
        body = json.dumps({"credential": "sandbox/tenant-a"})
        url = f"{lambda_url}/2015-03-31/functions/vend/invocations?Qualifier=settlement-job"
        assert requests.post(url, data=body, timeout=10).json()["errorType"] == "NotAuthorized"


def test_it_faces_another_imburse_with_keys_callers_and_a_policy_from_files(tmp_path: Path) -> None:
    key = {"publicKey": "4b1f0a52-0000-4000-8000-000000000001", "privateKey": base64.b64encode(os.urandom(32)).decode()}
    credential = {**key, "accountId": "account-1"}
    role = "arn:aws:sts::123456789012:assumed-role/payouts/session"
    caller = {"secretAccessKey": base64.b64encode(os.urandom(30)).decode(), "arn": role}
    (tmp_path / "secrets.json").write_text(json.dumps({"imburse/acme/payouts": credential}))
    (tmp_path / "callers.json").write_text(json.dumps({"AKIDPAYOUTS": caller}))
    (tmp_path / "policy.cedar").write_text(
        """permit (principal == Caller::"arn:aws:iam::123456789012:role/payouts", action, resource in Environment::"acme");"""
    )
    imburse = Imburse([ImburseKey.from_json(credential)])
    with (
        in_background(serving_app(imburse.app(), bind(0))) as imburse_url,
        serving(
            IMBURSE_URL=imburse_url,
            SECRETS=str(tmp_path / "secrets.json"),
            CALLERS=str(tmp_path / "callers.json"),
            POLICY=str(tmp_path / "policy.cedar"),
        ) as process,
    ):
        api_url, _ = ready(process)
        signed = Signed("AKIDPAYOUTS", caller["secretAccessKey"], "eu-west-1")
        answer = requests.post(f"{api_url}/v1/credentials/acme/payouts/token", auth=signed, timeout=10)
        assert answer.status_code == 200
        assert answer.json()["baseUrl"] == imburse_url
        headers = answer.json()["headers"]
        assert requests.get(f"{imburse_url}/v1/identity/me", headers=headers, timeout=10).status_code == 200


def test_a_policy_that_does_not_parse_keeps_it_from_starting(tmp_path: Path) -> None:
    policy = tmp_path / "broken.cedar"
    policy.write_text("permit everything!")
    status, out, err = failing(POLICY=str(policy))
    assert (status, out) == (1, "")
    assert "does not start" in err
    assert "Traceback" not in err


def test_a_malformed_credential_is_stored_and_answered_as_misconfigured(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.json"
    secrets.write_text(json.dumps({"imburse/sandbox/tenant-a": {"publicKey": "only"}}))
    with serving(SECRETS=str(secrets)) as process:
        _, lambda_url = ready(process)
        body = json.dumps({"credential": "sandbox/tenant-a"})
        url = f"{lambda_url}/2015-03-31/functions/vend/invocations?Qualifier=settlement-job"
        assert requests.post(url, data=body, timeout=10).json()["errorType"] == "CredentialMisconfigured"


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = failing(API_PORT=str(port))
    assert (status, out, err) == (1, "", f"error: port {port} is in use\n")


def test_a_bad_file_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    callers = tmp_path / "callers.json"
    callers.write_text("[]")
    status, out, err = failing(CALLERS=str(callers))
    assert (status, out, err) == (2, "", f"error: CALLERS {callers}: must be a JSON object\n")


def test_what_the_shell_has_set_for_aws_and_proxies_does_not_matter() -> None:
    elsewhere = {
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "AWS_PROFILE": "nowhere",
        "AWS_RETRY_MODE": "x",
    }
    environment_of_a_company = {**os.environ, **elsewhere, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    for name in ("NO_PROXY", "no_proxy", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        environment_of_a_company.pop(name, None)
    demo = [sys.executable, "-m", "local", "demo"]
    done = subprocess.run(demo, env=environment_of_a_company, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_a_web_page_reaches_neither_the_secrets_nor_the_functions() -> None:
    with in_background(LocalStack(StackSettings(secrets={"imburse/sandbox/a": "{}"}))) as stack:
        target = {"X-Amz-Target": "secretsmanager.GetSecretValue", "Content-Type": "application/x-amz-json-1.1"}
        authorization = "AWS4-HMAC-SHA256 Credential=x/20260101/eu-west-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=x"
        body = '{"SecretId": "imburse/sandbox/a"}'
        headers = {**target, "Authorization": authorization}
        assert requests.post(stack.moto_url, data=body, headers=headers, timeout=10).status_code == 200
        for page in ({"Origin": "https://evil.example"}, {"Host": "evil.example:80"}):
            assert requests.post(stack.moto_url, data=body, headers=headers | page, timeout=10).status_code == 403
            assert requests.options(stack.moto_url, headers=page, timeout=10).status_code == 403
