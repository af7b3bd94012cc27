"""`imburse-vending` as a shell runs it, against a local stack of its own: what it prints is what Imburse takes."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local.api_caller import LocalCaller
from local.serving import in_background
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings

COMMAND = str(Path(sys.executable).with_name("imburse-vending"))
VEND = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:imburse-vending-vend"


@dataclass(frozen=True)
class Shell:
    """A folder with the variables of `make serve`, the stack behind them, and the key of its one credential."""

    folder: Path
    stack: LocalStack
    key: dict[str, str]

    def run(self, *arguments: str, stdin: str | None = None, code: int = 0) -> str:
        """What the command prints on standard output. It must end with `code`, and nothing may show a private key."""
        done = subprocess.run(
            [COMMAND, *arguments], cwd=self.folder, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        shown = done.stdout + done.stderr
        assert done.returncode == code, shown
        assert self.key["privateKey"] not in shown
        assert "Traceback" not in shown
        return done.stdout if code == 0 else shown


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("shell")
    key = {"publicKey": str(uuid.uuid4()), "privateKey": base64.b64encode(os.urandom(32)).decode()}
    key |= {"accountId": str(uuid.uuid4()), "tenantId": str(uuid.uuid4())}
    caller = LocalCaller("LOCALORDERS", secrets.token_urlsafe(30), f"arn:aws:iam::{ACCOUNT_ID}:role/orders")
    settings = StackSettings(
        {"imburse/sandbox/tenant-a": json.dumps(key)}, {caller.access_key_id: caller}, concurrency=2
    )
    with in_background(LocalStack(settings)) as stack:
        variables = {
            "AWS_ACCESS_KEY_ID": caller.access_key_id,
            "AWS_SECRET_ACCESS_KEY": caller.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_LAMBDA": stack.lambda_url,
            "AWS_ENDPOINT_URL_STS": stack.sts_url,
            "VENDING_API": stack.api_url,
        }
        (folder / ".local").mkdir()
        (folder / ".local/env").write_text("".join(f"export {name}={value}\n" for name, value in variables.items()))
        (folder / "key.json").write_text(json.dumps(key))
        yield Shell(folder, stack, key)


def used(shell: Shell) -> int:
    assert shell.stack.imburse is not None
    return shell.stack.imburse.statistics.tokens_used


def test_a_call_vends_a_token_and_spends_it_once(shell: Shell) -> None:
    before = used(shell)
    reached: dict[str, Any] = json.loads(shell.run("call", "GET", "/v1/identity/me", "sandbox/tenant-a", "--local"))
    assert reached["accounts"] == [{"accountId": shell.key["accountId"]}]
    assert used(shell) == before + 1
    assert "404" in shell.run("call", "GET", "/v1/no-such-thing", "sandbox/tenant-a", "--local", code=1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_what_it_prints_for_curl_is_a_configuration_that_curl_takes(shell: Shell) -> None:
    configuration = shell.run("token", "sandbox/tenant-a", "--local", "--as", "curl")
    url = f"{shell.stack.imburse_url}/v1/identity/me"
    curl = ["curl", "--silent", "--fail", "--noproxy", "*", "--config", "-", url]
    done = subprocess.run(curl, input=configuration, capture_output=True, text=True, timeout=20, check=True)
    assert json.loads(done.stdout)["tenants"][0]["tenantId"] == shell.key["tenantId"]


@pytest.mark.parametrize("proof", [[], ["--prove"]])
def test_a_function_vends_too_by_alias_or_with_a_proof_of_the_role(shell: Shell, proof: list[str]) -> None:
    document = json.loads(
        shell.run("token", "sandbox/tenant-a", "--local", "--function", f"{VEND}:settlement-job", *proof, "--json")
    )
    answer = requests.get(document["baseUrl"] + "/v1/identity/me", headers=document["headers"], timeout=10)
    assert answer.status_code == 200


def test_it_says_as_whom_it_asked_and_what_the_key_reaches(shell: Shell) -> None:
    document = json.loads(shell.run("whoami", "sandbox/tenant-a", "--local", "--vend", "--json"))
    assert document["askedAs"].startswith(f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/orders/")
    assert document["tenants"][0]["tenantId"] == shell.key["tenantId"]


def test_a_refusal_has_its_exit_code_and_a_next_step(shell: Shell) -> None:
    shown = shell.run("whoami", "sandbox/tenant-a", "--local", code=3)
    assert "not_authorized" in shown
    assert "next:" in shown


def test_the_doctor_walks_the_whole_way_and_stops_where_it_ends(shell: Shell) -> None:
    well = json.loads(shell.run("doctor", "sandbox/tenant-a", "--vend", "--local", "--json"))
    assert {check["check"]: check["state"] for check in well["checks"]} == dict.fromkeys(
        [check["check"] for check in well["checks"]], "ok"
    )
    down = shell.run("doctor", "--local", "--api", "http://127.0.0.1:1", code=4)
    assert "takes no connection" in down
    assert "skipped  way in" in down


def test_a_header_that_it_signs_is_taken_once_and_checked_to_be_right(shell: Shell) -> None:
    header = json.loads(shell.run("sign", "--key-file", "key.json", "--json"))["authorization"]
    statuses = [
        requests.post(f"{shell.stack.imburse_url}/v1/identity/hmac", headers={"Authorization": header}, timeout=10)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in statuses] == [200, 401]
    shell.run("check", "-", "--key-file", "key.json", stdin=header)
    shell.run("check", "-", "--key-file", "key.json", stdin=header.replace("Hmac", "HMAC"), code=1)
