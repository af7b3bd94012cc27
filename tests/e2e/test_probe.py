"""The probe on the local stack, asked by the AWS CLI and fired by its schedule, as an operator meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from local.imburse import Imburse
from local.serving import in_background
from local.stack import REGION, LocalStack, StackSettings
from tests.fakes import secret
from tests.stack import ROOT

BIN = Path(sys.executable).parent
REVOKED = secret(publicKey="public-revoked")
SECRETS = {
    "imburse/sandbox/tenant-a": secret(),
    "imburse/sandbox/revoked": REVOKED,
    "imburse/sandbox/broken": {"publicKey": "p"},
    "imburse/sandbox/not/a/credential": {},
}
PERMIT = 'permit (principal == Caller::"alias/settlement-job", action == Action::"vend", resource == Credential::"{}");'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    policy = tmp_path_factory.mktemp("policy") / "dev.cedar"
    names = ("sandbox/tenant-a", "sandbox/gone", "sandbox/broken")
    policy.write_text("\n".join(f'@id("{name}") {PERMIT.format(name)}' for name in names))
    settings = StackSettings({name: json.dumps(members) for name, members in SECRETS.items()}, policy=policy)
    with in_background(LocalStack(settings)) as running:
        yield running


@pytest.fixture
def imburse(stack: LocalStack) -> Iterator[Imburse]:
    assert stack.imburse is not None
    stack.imburse.reset()
    stack.imburse.keys.revoke(REVOKED["publicKey"])
    yield stack.imburse
    stack.imburse.reset()


def invoke(stack: LocalStack, event: str, tmp_path: Path) -> dict[str, Any]:
    """What `aws lambda invoke` writes down."""
    answer_file = tmp_path / "answer.json"
    command = [
        str(BIN / "aws"), "lambda", "invoke", "--endpoint-url", stack.lambda_url, "--region", REGION,
        "--function-name", "imburse-vending-probe:live", "--payload", f"fileb://{ROOT / 'events' / event}", str(answer_file),
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert "FunctionError" not in done.stdout, answer_file.read_text()
    answer: dict[str, Any] = json.loads(answer_file.read_text())
    return answer


def test_each_credential_is_well_or_has_its_cause_and_a_stranger_is_refused(
    stack: LocalStack, imburse: Imburse, tmp_path: Path
) -> None:
    answer = invoke(stack, "probe_all.json", tmp_path)
    found = answer["credentials"]
    assert set(found) == {"sandbox/tenant-a", "sandbox/revoked", "sandbox/broken"}
    assert (found["sandbox/tenant-a"]["state"], found["sandbox/tenant-a"]["cause"]) == ("healthy", "ok")
    assert 0 <= found["sandbox/tenant-a"]["keyAgeDays"] < 1, "by the date of the secret's version"
    assert found["sandbox/revoked"]["cause"].startswith("the key is revoked: store a new one (401 API_KEY_REVOKED)")
    assert found["sandbox/broken"]["code"] == "credential_misconfigured"
    assert answer["stranger"] == {"refused": True, "answer": "NotAuthorized"}
    assert answer["policy"] == {"dangling": {"sandbox/gone": ["sandbox/gone"]}, "unreached": ["sandbox/revoked"]}
    assert imburse.statistics.tokens_used == imburse.statistics.tokens_issued == 1


def test_unhealthy_in_a_row_is_counted_across_runs_of_schedule_and_operator(
    stack: LocalStack, imburse: Imburse, tmp_path: Path
) -> None:
    fire = stack.lambda_url + "/local/schedules/imburse-vending-probe"
    before = requests.post(fire, timeout=60).json()["credentials"]["sandbox/revoked"]["unhealthyInARow"]
    after = invoke(stack, "probe_all.json", tmp_path)["credentials"]["sandbox/revoked"]["unhealthyInARow"]
    assert after == before + 1


def test_one_credential_is_probed_on_demand(stack: LocalStack, imburse: Imburse, tmp_path: Path) -> None:
    answer = invoke(stack, "probe_one.json", tmp_path)
    assert list(answer) == ["credentials"]
    assert answer["credentials"]["sandbox/tenant-a"]["state"] == "healthy"


def test_what_was_found_is_in_log_and_metrics_and_no_key_is(
    stack: LocalStack, imburse: Imburse, tmp_path: Path
) -> None:
    invoke(stack, "probe_all.json", tmp_path)
    text = "\n".join(line.text for line in stack.log_lines())
    for words in ('"StrangerRefused":[1.0]', '"CredentialHealthy":[0.0]', '"KeyAgeDays"', '"message":"probe"'):
        assert words in text
    for members in SECRETS.values():
        assert members.get("privateKey", "no key") not in text
