"""Rotation on boto3, moto's Secrets Manager and moto's DynamoDB: the real shapes of every call, and moto's habits."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from imburse_auth.aws import Aws
from imburse_auth.credential import CredentialId
from imburse_auth.exchange import Exchange
from imburse_auth.retry import Deadline
from local.imburse import Imburse, ImburseKey
from local.rotation import FUNCTION, Driver, RotationError
from tests.fakes import secret
from tests.rotation_world import HOSTS, EmulatorTransport, Log
from tests.stack import ROOT
from vending.record.audit import AuditTrail
from vending.record.metrics import VendingMetrics
from vending.rotating import Rotating
from vending.rotation.vendor import Vendor
from vending.table import Table, dynamodb_client

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

A = CredentialId("sandbox", "tenant-a")


class InvokedHere:
    """Lambda as the driver uses it, with the function in this process; its next `failures` calls fail."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run = run
        self.failures = 0

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's names
        assert FunctionName == FUNCTION
        if self.failures:
            self.failures -= 1
            error = {"errorType": "UpstreamUnavailable", "errorMessage": "Imburse does not answer"}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(error).encode())}
        return {"Payload": io.BytesIO(json.dumps(self._run(json.loads(Payload))).encode())}


class World:
    def __init__(self, client: SecretsManagerClient) -> None:
        boto3.client("dynamodb").create_table(
            TableName="vending",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            BillingMode="PAY_PER_REQUEST",
        )
        members = secret(publicKey="original")
        client.create_secret(Name=A.secret_name, SecretString=json.dumps(members))
        self.client = client
        self.imburse = Imburse([ImburseKey.from_json(members)])
        transport = EmulatorTransport(self.imburse)
        self.rotating = Rotating.assembled(
            client,
            Vendor(client, transport, Exchange(transport), HOSTS),
            Table(dynamodb_client(Aws(), patience_seconds=5.0), "vending"),
            grace_seconds=0,
            delete_rotated_keys=True,
            audit=AuditTrail(lambda _: None),
            metrics=VendingMetrics("rotate"),
            logger=Log(),  # type: ignore[arg-type]
        )
        self.lambda_ = InvokedHere(self.run)
        self.said: list[str] = []
        self.driver = Driver(self.lambda_, client, say=self.said.append, sleep=lambda _: None)  # type: ignore[arg-type]

    def run(self, event: object) -> Any:
        return self.rotating.run(event, request_id="request-1", deadline=Deadline.after(60))

    def accepted(self) -> set[str]:
        return {key.public_key for key in self.imburse.keys}

    def stages(self) -> dict[str, list[str]]:
        return self.client.describe_secret(SecretId=A.secret_name)["VersionIdsToStages"]


@pytest.fixture
def world(secrets_manager: SecretsManagerClient) -> World:
    return World(secrets_manager)


def test_the_driver_rotates_again_and_again_and_the_sweep_deletes(world: World) -> None:
    for _ in range(3):
        new = world.driver.rotate(A)
        world.run({})
        assert world.accepted() == {new}
    current = [version for version, stages in world.stages().items() if "AWSCURRENT" in stages]
    assert len(current) == 1
    assert world.said[-1].endswith(f"in use is {new}, version {current[0]}")


def test_a_step_may_run_again_and_an_abandoned_rotation_is_made_good(world: World) -> None:
    abandoned = str(uuid.uuid4())
    event = {"SecretId": A.secret_name, "ClientRequestToken": abandoned}
    for step in ("createSecret", "createSecret", "testSecret"):
        world.run(event | {"Step": step})
    assert len(world.accepted()) == 2
    new = world.driver.rotate(A)
    assert world.accepted() == {"original", new}
    with pytest.raises(Exception, match="a later rotation came"):
        world.run(event | {"Step": "finishSecret"})


def test_the_driver_tries_a_failed_step_again_and_not_for_ever(world: World) -> None:
    world.lambda_.failures = 4
    world.driver.rotate(A)
    world.lambda_.failures = 5
    with pytest.raises(RotationError, match="createSecret failed 5 times: UpstreamUnavailable"):
        world.driver.rotate(A)


def test_the_driver_says_when_there_is_no_such_secret(world: World) -> None:
    with pytest.raises(RotationError, match="there is no secret"):
        world.driver.rotate(CredentialId("sandbox", "nobody"))


def test_what_the_driver_prints_holds_no_private_key(world: World) -> None:
    world.driver.rotate(A)
    text = world.client.get_secret_value(SecretId=A.secret_name, VersionStage="AWSCURRENT")["SecretString"]
    assert json.loads(text)["privateKey"] not in "\n".join(world.said)


def test_a_version_that_was_announced_without_a_value_is_given_one(world: World) -> None:
    """What AWS does before the first step, by the one way in which moto does it too: it fails after announcing."""
    ticket = str(uuid.uuid4())
    with pytest.raises(world.client.exceptions.ResourceNotFoundException):
        world.client.rotate_secret(
            SecretId=A.secret_name,
            ClientRequestToken=ticket,
            RotationLambdaARN="arn:aws:lambda:eu-west-1:123456789012:function:nothing",
        )
    assert world.stages()[ticket] == ["AWSPENDING"]
    assert world.driver.rotate(A, ticket) in world.accepted()


def test_motos_own_rotation_without_a_function_is_of_no_use(world: World) -> None:
    """Why the driver does not call it: AWSCURRENT would be on a version without a value."""
    world.client.rotate_secret(SecretId=A.secret_name)
    with pytest.raises(world.client.exceptions.ResourceNotFoundException):
        world.client.get_secret_value(SecretId=A.secret_name, VersionStage="AWSCURRENT")


def test_the_events_are_taken_in_their_order(world: World) -> None:
    for name in ("create", "set", "test", "finish"):
        answer = world.run(json.loads((ROOT / f"events/rotate_{name}.json").read_text("utf-8")))
        assert answer["step"] == f"{name}Secret"
    assert len(world.accepted()) == 2
