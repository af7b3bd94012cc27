"""Rotation on the local stack: real functions, moto's Secrets Manager, the emulator over HTTP, and a process that is killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import requests
from botocore.config import Config

from imburse_auth.credential import CredentialId
from local.api_caller import LocalCaller
from local.demo_clients import Signed, secrets_client
from local.imburse import Imburse
from local.imburse_faults import Fault
from local.imburse_keys import ImburseKey
from local.rotation import Driver, RotationError
from local.serving import in_background
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings
from tests.fakes import secret
from tests.processes import descendants, wait_until

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

CALLERS = 50
NAMES = ("tenant-a", "lossy", "slain", "managed")
ROLES = ["tenant-admin", "tenant-transaction-read"]


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    members: dict[str, Any] = {name: secret(tenantId=name, roles=ROLES, name=f"{name}-key") for name in NAMES}
    members["managed"] |= {"managedBy": "sandbox/account", "roles": ROLES[1:]}
    members["account"] = secret(tenantId=None, roles=["account-admin"])
    settings = StackSettings(
        secrets={f"imburse/sandbox/{name}": json.dumps(value) for name, value in members.items()},
        callers={"ORDERS": LocalCaller("ORDERS", "orders-secret", f"arn:aws:iam::{ACCOUNT_ID}:role/orders")},
        concurrency=4,
        # Shorter than may be deployed: in here no cache is older than the test.
        parameters={"DeleteRotatedKeys": "true", "RotationGraceSeconds": "0"},
    )
    with in_background(LocalStack(settings)) as stack:
        yield stack


@pytest.fixture
def imburse(stack: LocalStack) -> Iterator[Imburse]:
    assert stack.imburse is not None
    yield stack.imburse
    stack.imburse.faults.clear()


@pytest.fixture(scope="module")
def client(stack: LocalStack) -> LambdaClient:
    config = Config(max_pool_connections=CALLERS, retries={"total_max_attempts": 1}, proxies={}, read_timeout=60)
    session = boto3.Session("local", "local", region_name=REGION)
    return session.client("lambda", endpoint_url=stack.lambda_url, config=config)


def driver(stack: LocalStack, client: LambdaClient) -> Driver:
    return Driver(client, secrets_client(stack.moto_url, REGION), say=lambda _: None, pause_seconds=0.2)


def keys_of(imburse: Imburse, tenant: str) -> set[str]:
    return {key.public_key for key in imburse.keys if key.tenant_id == tenant}


def namesake(imburse: Imburse, tenant: str) -> str:
    """A key of the same name that somebody made in the portal."""
    key = ImburseKey(
        f"portal-{tenant}", secrets.token_bytes(32), "account-1", tenant, ("tenant-admin",), f"{tenant}-key"
    )
    imburse.keys.add(key)
    return key.public_key


def vend(client: LambdaClient, credential: str) -> dict[str, Any]:
    """A token by the direct door; the alias access-report may have any credential of sandbox."""
    event = json.dumps({"credential": credential}).encode()
    response = client.invoke(FunctionName="imburse-vending-vend:access-report", Payload=event)
    answer: dict[str, Any] = json.load(response["Payload"])
    assert not response.get("FunctionError"), answer.get("errorType")
    return answer


def use(answer: dict[str, Any]) -> int:
    return requests.get(answer["baseUrl"] + "/v1/identity/me", headers=answer["headers"], timeout=10).status_code


def sweep(client: LambdaClient) -> dict[str, Any]:
    response = client.invoke(FunctionName="imburse-vending-rotate:live", Payload=b"{}")
    answer: dict[str, Any] = json.load(response["Payload"])
    assert not response.get("FunctionError"), answer
    return answer


def test_fifty_callers_vend_through_a_rotation_and_a_deletion_without_a_failed_vend(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    old, other = next(iter(keys_of(imburse, "tenant-a"))), namesake(imburse, "tenant-a")
    rotated, tokens, used = threading.Event(), list[str](), list[int]()

    def call(number: int) -> None:
        """Vend and use until the rotation is over, and once more after that."""
        last = False
        while not last:
            last = rotated.is_set()
            if number % 2:
                answer = vend(client, "sandbox/tenant-a")
            else:
                url = stack.api_url + "/v1/credentials/sandbox/tenant-a/token"
                response = requests.post(url, auth=Signed("ORDERS", "orders-secret", REGION), timeout=30)
                assert response.status_code == 200, response.text
                answer = response.json()
            tokens.append(answer["accessToken"])
            used.append(use(answer))

    with ThreadPoolExecutor(CALLERS) as callers:
        calls = [callers.submit(call, number) for number in range(CALLERS)]
        try:
            new = driver(stack, client).rotate(CredentialId("sandbox", "tenant-a"))
        finally:
            rotated.set()
        for one in calls:
            one.result()
    assert len(set(tokens)) == len(tokens) >= CALLERS
    assert set(used) == {200}
    assert keys_of(imburse, "tenant-a") == {old, new, other}

    # Some functions still hold the old key. It is deleted under them, and nobody is refused.
    assert f"sandbox/tenant-a {old}" in sweep(client)["deleted"]
    assert keys_of(imburse, "tenant-a") == {new, other}
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: vend(client, "sandbox/tenant-a"), range(16)))
    assert {use(answer) for answer in answers} == {200}


@pytest.mark.parametrize(("method", "kind"), [("POST", "drop"), ("POST", "drop_before"), ("GET", "drop")])
def test_an_answer_that_is_lost_before_or_after_its_effect_leaves_one_key_and_no_orphan(
    stack: LocalStack, client: LambdaClient, imburse: Imburse, kind: Any, method: str
) -> None:
    (old,) = keys_of(imburse, "lossy")
    other = namesake(imburse, "lossy")
    imburse.faults.add(Fault(kind, path="/v1/tenant/lossy/keys", method=method, times=1))
    new = driver(stack, client).rotate(CredentialId("sandbox", "lossy"))
    assert imburse.faults.active() == ()
    sweep(client)
    assert keys_of(imburse, "lossy") == {new, other}
    assert old != new
    assert use(vend(client, "sandbox/lossy")) == 200
    imburse.keys.revoke(other)


def test_a_function_that_is_killed_while_it_makes_a_key_leaves_no_orphan(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    (old,) = keys_of(imburse, "slain")
    imburse.faults.add(Fault("latency", path="/v1/tenant/slain/keys", method="POST", times=1, seconds=1.0))
    with ThreadPoolExecutor(1) as background:
        rotation = background.submit(driver(stack, client).rotate, CredentialId("sandbox", "slain"))
        wait_until(lambda: not imburse.faults.active(), "the request that makes the key")
        for pid in rotate_processes():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(keys_of(imburse, "slain")) == 2, "the key that nobody will ever read")
        (orphan,) = keys_of(imburse, "slain") - {old}
        assert use(vend(client, "sandbox/slain")) == 200
        new = rotation.result()
    sweep(client)
    assert orphan != new
    assert keys_of(imburse, "slain") == {new}
    assert use(vend(client, "sandbox/slain")) == 200


def test_a_key_that_may_not_manage_keys_is_rotated_by_the_one_that_it_names(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    (old,) = keys_of(imburse, "managed")
    new = driver(stack, client).rotate(CredentialId("sandbox", "managed"))
    assert keys_of(imburse, "managed") == {old, new}
    (made,) = (key for key in imburse.keys if key.public_key == new)
    assert (made.roles, made.name) == (("tenant-transaction-read",), "managed-key")


def test_an_accounts_key_is_not_rotated(stack: LocalStack, client: LambdaClient) -> None:
    with pytest.raises(RotationError, match="Tenant Portal"):
        Driver(client, secrets_client(stack.moto_url, REGION), say=lambda _: None, tries=1).rotate(
            CredentialId("sandbox", "account")
        )


def test_every_key_made_moved_and_deleted_is_in_the_log_and_no_private_key(
    stack: LocalStack, client: LambdaClient, imburse: Imburse
) -> None:
    (old,) = keys_of(imburse, "lossy")
    new = driver(stack, client).rotate(CredentialId("sandbox", "lossy"))
    sweep(client)

    def records() -> list[dict[str, Any]]:
        return [json.loads(line.text) for line in stack.log_lines() if '"action": "rotate"' in line.text]

    for key in ({"made": new}, {"current": new, "retired": old}, {"deleted": old, "why": "retired"}):
        wait_until(lambda key=key: key in [record["key"] for record in records()], f"the record of {[*key]}")  # type: ignore[misc]
    text = "\n".join(line.text for line in stack.log_lines())
    current = secrets_client(stack.moto_url, REGION).get_secret_value(
        SecretId="imburse/sandbox/lossy", VersionStage="AWSCURRENT"
    )
    assert json.loads(current["SecretString"])["privateKey"] not in text
    assert '"privateKey"' not in text


def rotate_processes() -> list[int]:
    found = []
    for pid in descendants(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"handlers.rotate.handler" in command:
            found.append(pid)
    assert found
    return found
