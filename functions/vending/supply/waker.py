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
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from imburse_auth.credential import CredentialId
from vending.table import PATIENCE_SECONDS, Table, TableUnavailable

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

EVERY_SECONDS = 5
MARKER_KEPT_SECONDS = 86_400


def lambda_client() -> LambdaClient:
    """A Lambda client that gives up soon, after one try: the schedule comes round anyway."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=PATIENCE_SECONDS,
        read_timeout=PATIENCE_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
    )
    return boto3.client("lambda", config=config)


class Waker:
    """Invokes the refill function, at most once in 5 s for a credential among all environments, and waits for nothing."""

    def __init__(
        self, table: Table, lambda_: LambdaClient, refill_function: str, *, clock: Callable[[], float] = time.time
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
            self._lambda.invoke(
                FunctionName=self._refill_function,
                InvocationType="Event",
                Payload=json.dumps({"credential": str(credential)}).encode(),
            )
        except (TableUnavailable, ClientError, BotoCoreError):
            return False
        return True
