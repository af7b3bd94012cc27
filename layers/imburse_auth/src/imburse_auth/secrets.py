"""API keys from Secrets Manager, kept in memory for a while.

| kept | how long | why |
|---|---|---|
| a key, by credential | 5 minutes | a vend must not cost a call to Secrets Manager, and a rotated key must arrive by itself |
| the same key, stale | 1 hour after it was read | vending goes on while Secrets Manager is down, and only then |
| "Secrets Manager is down", by credential | 10 seconds | while it is, each vend must not wait for it to time out |
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import CredentialMisconfigured, CredentialNotFound, SecretsUnavailable
from imburse_auth.retry import Deadline

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

    from imburse_auth.aws import Aws

TTL_SECONDS = 300
STALE_SECONDS = 3600
DOWN_SECONDS = 10
LONGEST_READ_SECONDS = 7  # what secrets_client() takes at most: with less time left, no read is begun

# Always named: a reader that leaves it out gets AWS's default, and from moto a stale version after a rotation.
_CURRENT = "AWSCURRENT"
_NOT_FOUND = {"ResourceNotFoundException", "InvalidRequestException"}  # the latter: it is marked for deletion
_DOWN = {
    "InternalServiceError",
    "InternalFailure",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "RequestTimeout",
}
_DOWN |= {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}


def secrets_client(aws: Aws) -> SecretsManagerClient:
    """A Secrets Manager client that gives up within about 7 seconds: two tries, 1 s to connect and 2 s to read each."""
    client: SecretsManagerClient = aws.client("secretsmanager", connect_seconds=1, read_seconds=2, tries=2)
    return client


@dataclass(frozen=True)
class _Entry:
    api_key: ApiKey
    read_at_seconds: float
    ask_again_at_seconds: float


class SecretStore:
    """Reads credentials, one fetch at a time for each, however many threads ask."""

    def __init__(self, client: SecretsManagerClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._entries: dict[CredentialId, _Entry] = {}
        self._fetches: dict[CredentialId, Future[ApiKey]] = {}

    def get(
        self, credential: CredentialId, *, deadline: Deadline | None = None, on_read: Callable[[], None] = lambda: None
    ) -> ApiKey:
        """The credential's current key, from memory if it was read in the last 5 minutes. `on_read` counts real reads.

        Raises CredentialNotFound, CredentialMisconfigured or SecretsUnavailable.
        """
        entry = self._entries.get(credential)
        if entry is not None and self._monotonic() < entry.ask_again_at_seconds:
            return entry.api_key
        try:
            return self._fetch(credential, deadline, on_read)
        except _SecretsDown as exc:
            stale = self._stale(credential)
            if stale is None:
                raise SecretsUnavailable(exc.detail, reason=exc.reason) from exc
            return stale

    def reread(
        self,
        credential: CredentialId,
        refused: ApiKey,
        *,
        deadline: Deadline | None = None,
        on_read: Callable[[], None] = lambda: None,
    ) -> ApiKey:
        """The key as it is now in Secrets Manager, past the cache, because `refused` was refused.

        Threads that are refused together share one read: a key that came after `refused` is served from memory.
        """
        entry = self._entries.get(credential)
        if entry is not None and entry.api_key != refused:
            return entry.api_key
        try:
            return self._fetch(credential, deadline, on_read)
        except _SecretsDown as exc:
            raise SecretsUnavailable(exc.detail, reason=exc.reason) from exc

    def _fetch(self, credential: CredentialId, deadline: Deadline | None, on_read: Callable[[], None]) -> ApiKey:
        if deadline is not None and deadline.remaining_seconds() < LONGEST_READ_SECONDS:
            raise _SecretsDown("no time was left to read the key")
        with self._lock:
            fetch = self._fetches.get(credential)
            ours = fetch is None
            if fetch is None:
                fetch = self._fetches[credential] = Future()
        if ours:
            try:
                on_read()
                api_key = self._read(credential)
                now = self._monotonic()
                self._entries[credential] = _Entry(api_key, now, now + TTL_SECONDS)
                fetch.set_result(api_key)
            except BaseException as exc:  # noqa: BLE001 - handed to every waiting thread, ours included
                fetch.set_exception(exc)
            finally:
                with self._lock:
                    del self._fetches[credential]
        return fetch.result()

    def _read(self, credential: CredentialId) -> ApiKey:
        try:
            answer = self._client.get_secret_value(SecretId=credential.secret_name, VersionStage=_CURRENT)
        except ClientError as exc:
            code = exc.response.get("Error", {}).get("Code", "")
            status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _NOT_FOUND:
                self._entries.pop(credential, None)
                raise CredentialNotFound("there is no such credential", reason=code) from exc
            if code in _DOWN or status >= 500:
                raise _SecretsDown("Secrets Manager has a fault", reason=code) from exc
            # Access denied, a key that is disabled: somebody's decision, which a value from memory must not undo.
            self._entries.pop(credential, None)
            raise SecretsUnavailable("Secrets Manager does not give out the key", reason=code) from exc
        except BotoCoreError as exc:
            raise _SecretsDown("Secrets Manager does not answer", reason=type(exc).__name__) from exc
        text = answer.get("SecretString")
        if text is None:
            raise CredentialMisconfigured("secret: must be text, not binary")
        return ApiKey.from_secret(text)

    def _stale(self, credential: CredentialId) -> ApiKey | None:
        entry = self._entries.get(credential)
        now = self._monotonic()
        if entry is None or now - entry.read_at_seconds > STALE_SECONDS:
            return None
        ask_again_at = min(now + DOWN_SECONDS, entry.read_at_seconds + STALE_SECONDS)
        self._entries[credential] = _Entry(entry.api_key, entry.read_at_seconds, ask_again_at)
        return entry.api_key


class _SecretsDown(SecretsUnavailable):
    """Secrets Manager itself fails: a value from memory may be served."""
