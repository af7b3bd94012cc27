"""`make rotate CREDENTIAL=sandbox/tenant-a`: plays Secrets Manager's part in a rotation, on the local stack.

moto keeps versions and stages but rotates nothing that is of use here. Its `rotate_secret` puts AWSPENDING on a version
without a value, and then either asks a Lambda of its own, which knows none of our functions, or, without a function's ARN,
moves AWSCURRENT to that empty version: the credential is dead. It refuses where AWS would not (AWSPENDING on the current
version) and does not where AWS would. So this calls neither it nor anything that depends on it: it makes a token, invokes
the four steps under the same contract as AWS (the event, one step after the other, a failed step again), and looks whether
AWSCURRENT moved. Unlike AWS it does not announce the version before the first step; the function does not need that.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imburse_auth.credential import CredentialId
from local.demo_clients import lambda_client, secrets_client

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
FUNCTION = "imburse-vending-rotate:live"
TRIES = 5
PAUSE_SECONDS = 2.0
_ENDPOINTS = ("AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL_SECRETS_MANAGER")


class RotationError(Exception):
    """The rotation did not come to its end; the message is one line."""


@dataclass(frozen=True)
class Driver:
    """Rotates one credential at a time. `say` gets a line for each thing that happens, never a private key."""

    lambda_: LambdaClient
    secrets: SecretsManagerClient
    say: Callable[[str], None] = print
    sleep: Callable[[float], None] = time.sleep
    tries: int = TRIES
    pause_seconds: float = PAUSE_SECONDS

    def rotate(self, credential: CredentialId, token: str | None = None) -> str:
        """Run the four steps, under a new token unless one is given. Answers the new public key. Raises RotationError."""
        token = token or str(uuid.uuid4())
        version, public_key = self._current(credential)
        self.say(f"{credential}: in use is {public_key}, version {version}; the new version will be {token}")
        for step in STEPS:
            self.say(f"  {step:<12}  {self._step(step, credential, token)}")
        version, public_key = self._current(credential)
        if version != token:
            raise RotationError(f"AWSCURRENT is on version {version} and did not move to {token}")
        self.say(f"{credential}: in use is {public_key}, version {version}")
        return public_key

    def _step(self, step: str, credential: CredentialId, token: str) -> str:
        event = {"Step": step, "SecretId": credential.secret_name, "ClientRequestToken": token}
        for attempt in range(1, self.tries + 1):
            answer = self.lambda_.invoke(FunctionName=FUNCTION, Payload=json.dumps(event).encode())
            result: Any = json.load(answer["Payload"])
            if not answer.get("FunctionError"):
                return str(result["done"])
            problem = f"{result.get('errorType')}: {result.get('errorMessage')}"
            if attempt < self.tries:
                self.say(f"  {step:<12}  failed ({problem}); again in {self.pause_seconds:g} s")
                self.sleep(self.pause_seconds)
        raise RotationError(f"{step} failed {self.tries} times: {problem}")

    def _current(self, credential: CredentialId) -> tuple[str, str]:
        # By name of the stage: without it moto answers a stale version after a rotation.
        try:
            answer = self.secrets.get_secret_value(SecretId=credential.secret_name, VersionStage="AWSCURRENT")
        except self.secrets.exceptions.ResourceNotFoundException as exc:
            raise RotationError(f"there is no secret {credential.secret_name}") from exc
        return answer["VersionId"], str(json.loads(answer["SecretString"])["publicKey"])


def main(credential: str, environ: Mapping[str, str]) -> int:
    """Rotate a credential of the stack that `make serve` runs in another shell. Answers the exit status."""
    try:
        lambda_url, secrets_url = (_local(environ, variable) for variable in _ENDPOINTS)
        region = environ.get("AWS_DEFAULT_REGION", "eu-west-1")
        driver = Driver(lambda_client(lambda_url, region), secrets_client(secrets_url, region))
        driver.rotate(CredentialId.parse(credential))
    except (RotationError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def _local(environ: Mapping[str, str], variable: str) -> str:
    url = environ.get(variable, "")
    if urlsplit(url).hostname != "127.0.0.1":
        raise RotationError(
            f"{variable}: must be this machine: run `make serve` in one shell and `. .local/env` in this one."
            " On AWS: aws secretsmanager rotate-secret"
        )
    return url
