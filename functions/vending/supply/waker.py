"""Waking the refill function when a pool runs low, rather than waiting for its minute.

| item | pk | sk | attributes |
|---|---|---|---|
| wake marker | `wake#<credential>` | `lease` | fence, until_ms: a lease of 5 s that nobody gives back |
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from imburse_auth.credential import CredentialId
from vending.table import PATIENCE_SECONDS, Table, TableUnavailable

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

    from imburse_auth.aws import Aws

EVERY_SECONDS = 5
MARKER_KEPT_SECONDS = 86_400


def lambda_client(aws: Aws) -> LambdaClient:
    """A Lambda client that gives up soon, after one try: the schedule comes round anyway."""
    client: LambdaClient = aws.client(
        "lambda", connect_seconds=PATIENCE_SECONDS, read_seconds=PATIENCE_SECONDS, tries=1
    )
    return client


class LateLambda:
    """A `lambda_client` that is made when it is first used: most environments end before one of their pools runs low."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._lock = threading.Lock()
        self._client: LambdaClient | None = None

    def invoke(self, **asked: Any) -> Any:  # noqa: ANN401 - the client's own
        """As the client does. Raises what botocore raises."""
        with self._lock:
            if self._client is None:
                self._client = lambda_client(self._aws)
        return self._client.invoke(**asked)


class Waker:
    """Invokes the refill function, at most once in 5 s for a credential among all environments, and waits for nothing."""

    def __init__(
        self,
        table: Table,
        lambda_: LambdaClient | LateLambda,
        refill_function: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._lambda = lambda_
        self._refill_function = refill_function
        self._clock = clock
        self._lock = threading.Lock()
        self._quiet_until: dict[CredentialId, float] = {}

    def wake(self, credential: CredentialId) -> bool:
        """Have the credential's pool filled. False if it is being, or cannot be: nothing is raised, the schedule comes."""
        now = self._clock()
        with self._lock:  # in memory first: a pool that is dry must not cost a write each vend
            if now < self._quiet_until.get(credential, 0.0):
                return False
            self._quiet_until[credential] = now + EVERY_SECONDS
        now_ms = int(now * 1000)
        try:
            marker = self._table.lease(
                f"wake#{credential}",
                "lease",
                now_ms=now_ms,
                until_ms=now_ms + EVERY_SECONDS * 1000,
                ttl=int(now) + MARKER_KEPT_SECONDS,
            )
            if marker is None:
                return False
            answer = self._lambda.invoke(
                FunctionName=self._refill_function,
                InvocationType="Event",
                Payload=json.dumps({"credential": str(credential)}).encode(),
            )
            answer["Payload"].read()  # nothing stands in it, but unread it would cost the connection
        except (TableUnavailable, ClientError, BotoCoreError):
            return False
        return True
