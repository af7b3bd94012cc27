"""Tokens by direct invoke of the vend function, through the caller's own alias."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from imburse_auth.client.api_answer import read_batch
from imburse_auth.client.failed import VendingFailed, read_json, unexpected
from imburse_auth.client.patience import (
    CONNECT_TIMEOUT_SECONDS,
    PATIENCE_SECONDS,
    READ_TIMEOUT_SECONDS,
    Patience,
    PerProcess,
    region_of,
)
from imburse_auth.client.vended import Vended
from imburse_auth.credential import CredentialId

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_lambda import LambdaClient

_ARN = re.compile(r"arn:aws[a-z-]*:lambda:([a-z0-9-]+):.+")
_ERROR_NAME = re.compile(r"[A-Za-z.]{1,64}")
MAX_BODY_BYTES = 6 * 1024 * 1024


class InvokeSource:
    """Vends by invoking `function`, which names the caller's alias: `imburse-vending-vend:settlement-job`, or its ARN.

    `proof` is called for each invoke and answers what stands in the event's `proof` (imburse_auth.caller_proof). Without a
    `client` one is made on first use, of `session`, which botocore lets try once: a retry below ours after a time-out would
    vend a second token to nobody. A client of your own that retries costs such tokens, and repeats none; it must not be
    used on both sides of a fork.
    """

    def __init__(
        self,
        function: str,
        *,
        client: LambdaClient | None = None,
        proof: Callable[[], object] | None = None,
        session: boto3.Session | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not function:
            raise ValueError("function: must be the name or the ARN of the vend function, with your alias")
        self._function = function
        self._client: PerProcess[LambdaClient] = PerProcess(lambda: client or _client(function, session))
        self._proof = proof
        self._patience = Patience(patience_seconds, monotonic, sleep)

    def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:
        """At least one token, at most `count`. Raises VendingFailed, and ValueError for a credential that is no id."""
        event: dict[str, Any] = {
            "credential": str(CredentialId.parse(str(credential))),
            "minimumLifetimeSeconds": minimum_lifetime_seconds,
        }
        if count != 1:
            event["count"] = count
        answer = self._patience(lambda: self._once(event))
        return read_batch([answer] if count == 1 else answer, credential, count)

    def _once(self, event: dict[str, Any]) -> Any:  # noqa: ANN401 - its JSON
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if self._proof is not None:
                event = {**event, "proof": self._proof()}
        except (LookupError, BotoCoreError) as exc:
            raise VendingFailed("no_aws_credentials", f"no proof of the caller: {type(exc).__name__}") from None
        try:
            response = self._client.get().invoke(FunctionName=self._function, Payload=json.dumps(event).encode())
            body = response["Payload"].read(MAX_BODY_BYTES + 1)
        except ClientError as exc:
            raise _refused(exc) from None
        except (BotoCoreError, OSError) as exc:
            raise _unreachable(exc) from None
        payload = read_json(body) if len(body) <= MAX_BODY_BYTES else None
        if response.get("FunctionError"):
            raise _raised(payload)
        if payload is None:
            raise unexpected("the function's answer is not JSON", status=response["StatusCode"])
        return payload


def _client(function: str, session: boto3.Session | None) -> LambdaClient:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": 1},
        max_pool_connections=32,
    )
    arn = _ARN.fullmatch(function)
    session = session or boto3.Session()
    return session.client("lambda", region_name=arn[1] if arn else region_of(session), config=config)


def _raised(payload: object) -> VendingFailed:
    """What the function raised: its errorMessage is the problem document, unless the function itself broke down."""
    members = payload if isinstance(payload, dict) else {}
    message, kind = members.get("errorMessage"), members.get("errorType")
    failure = VendingFailed.from_problem(read_json(message.encode())) if isinstance(message, str) else None
    if failure is not None:
        return failure
    name = kind if isinstance(kind, str) and _ERROR_NAME.fullmatch(kind) else "no error type"
    return VendingFailed("failed_in_aws", f"the vend function broke down: {name}", status=502, retryable=True)


def _refused(exc: Any) -> VendingFailed:  # noqa: ANN401 - botocore's ClientError, which is not imported here
    """Lambda's own no. Its message is left out: it would name the account and the role in logs far from AWS."""
    name = str(exc.response.get("Error", {}).get("Code"))
    metadata = exc.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    code = "throttled_by_aws" if status == 429 else "failed_in_aws" if status >= 500 else "refused_by_aws"
    hint = {
        "AccessDeniedException": "IAM does not let this role invoke this alias",
        "ResourceNotFoundException": "there is no such function or alias",
    }.get(name, "see the Lambda API reference")
    return VendingFailed(
        code,
        f"Lambda, {name if _ERROR_NAME.fullmatch(name) else 'error'}: {hint}",
        status=status,
        retryable=status == 429 or status >= 500,
        request_id=metadata.get("RequestId"),
    )


def _unreachable(exc: Exception) -> VendingFailed:
    from botocore.exceptions import ConnectionError as BotoConnectionError
    from botocore.exceptions import HTTPClientError

    if isinstance(exc, (OSError, BotoConnectionError, HTTPClientError)):
        return VendingFailed("unreachable", f"no answer from Lambda: {type(exc).__name__}", retryable=True)
    # No region, no credentials, or credentials that cannot be refreshed.
    return VendingFailed("no_aws_credentials", f"the AWS SDK cannot make the request: {type(exc).__name__}")
