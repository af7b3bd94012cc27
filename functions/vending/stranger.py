"""The negative probe: a request that must be refused, made by nobody."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from imburse_auth.credential import CredentialId

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

    from imburse_auth.aws import Aws

PATIENCE_SECONDS = 10.0

# Lambda's own failures are called Runtime.ExitError, Sandbox.Timedout and the like; one of vend's is a class name.
_ERROR_TYPE = re.compile(r"[A-Za-z0-9_]{1,64}")


def lambda_client(aws: Aws) -> LambdaClient:
    """A Lambda client that waits 10 s for a refusal, which needs neither Imburse nor a key. One try: the next is due soon."""
    client: LambdaClient = aws.client("lambda", connect_seconds=2, read_seconds=PATIENCE_SECONDS, tries=1)
    return client


@dataclass(frozen=True)
class Verdict:
    """Whether the stranger was refused, None if vend could not be asked; and what came instead, in a word or two."""

    refused: bool | None
    answer: str


class Stranger:
    """Asks `vend` for a token through `live`, the alias of no caller, which no policy may name."""

    def __init__(self, lambda_: LambdaClient, vend_as_nobody: str) -> None:
        self._lambda = lambda_
        self._vend_as_nobody = vend_as_nobody

    def ask(self, credential: CredentialId) -> Verdict:
        """Ask for one token. Whatever comes is dropped here and not looked into: it may be a token."""
        event = json.dumps({"credential": str(credential), "count": 1}).encode()
        try:
            response = self._lambda.invoke(FunctionName=self._vend_as_nobody, Payload=event)
            payload: Any = json.loads(response["Payload"].read())
        except ClientError as exc:
            return Verdict(None, str(exc.response.get("Error", {}).get("Code", "")))
        except (BotoCoreError, OSError, ValueError) as exc:
            return Verdict(None, type(exc).__name__)
        if not response.get("FunctionError"):
            return Verdict(refused=False, answer="served")
        error_type = payload.get("errorType") if isinstance(payload, dict) else None
        if not isinstance(error_type, str) or not _ERROR_TYPE.fullmatch(error_type):
            return Verdict(None, "vend crashed or ran out of time")
        # Any other error of vend's own is not the refusal that must come, and nearly all come after the policy let it through.
        return Verdict(error_type == "NotAuthorized", error_type)
