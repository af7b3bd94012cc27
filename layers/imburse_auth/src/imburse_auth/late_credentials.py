"""A role's AWS credentials, read at the first request instead of when a client is made.

A function with SnapStart has no AWS_ACCESS_KEY_ID: its runtime gives the role's credentials out at an address of its own.
botocore asks there when a client is made, which is during init, and the role's credentials would be part of the snapshot,
which everything that Lambda restores begins with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from botocore.credentials import DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, CredentialRetrievalError
from botocore.httpsession import URLLib3Session
from botocore.utils import ContainerMetadataFetcher, parse_timestamp

# The address is on this machine. botocore would wait for 2 s three times and sleep in between, behind a lock: a visit's time.
PATIENCE_SECONDS = 0.3
FAILED_SECONDS = 1.0  # so long nobody asks again, nor waits behind the others that ask

_ADDRESS = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_AUTHORIZATION = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
_IN_THE_ENVIRONMENT = "AWS_ACCESS_KEY_ID"
_METHOD = "container-role"


class _Chain(Protocol):
    def load_credentials(self) -> Any:  # noqa: ANN401 - botocore's own
        ...


class LateCredentials:
    """Takes the place of botocore's chain of credential providers, which it asks wherever the runtime is not SnapStart's.

    `environ` is looked at again at each refresh: what a restored environment is told counts, not what the snapshot was.
    """

    def __init__(self, chain: _Chain, environ: Mapping[str, str], *, clock: Callable[[], float] = time.time) -> None:
        self._chain = chain
        self._environ = environ
        self._clock = clock
        self._failed_at = -FAILED_SECONDS

    def load_credentials(self) -> Any:  # noqa: ANN401 - botocore's own
        """Credentials, or with SnapStart what will ask for them when they are used."""
        if _ADDRESS not in self._environ or _IN_THE_ENVIRONMENT in self._environ:
            return self._chain.load_credentials()
        return DeferredRefreshableCredentials(self._read, _METHOD)

    def _read(self) -> dict[str, str]:
        """Ask the runtime, under botocore's lock. Raises CredentialRetrievalError, a BotoCoreError, if it gives none of use."""
        if 0 <= self._clock() - self._failed_at < FAILED_SECONDS:
            raise _failure("failed just now")
        try:
            credentials = self._asked()
            left = parse_timestamp(credentials["expiry_time"]) - datetime.fromtimestamp(self._clock(), UTC)
        except (BotoCoreError, AttributeError, LookupError, OverflowError, TypeError, ValueError) as exc:
            self._failed_at = self._clock()
            raise _failure(type(exc).__name__) from None  # the text of some holds what was answered
        if left <= timedelta(0):
            self._failed_at = self._clock()
            raise _failure("expired")
        return credentials

    def _asked(self) -> dict[str, str]:
        token = self._environ.get(_AUTHORIZATION)
        fetcher = ContainerMetadataFetcher(URLLib3Session(timeout=PATIENCE_SECONDS), sleep=lambda _: None)  # type: ignore[arg-type]
        answer = fetcher.retrieve_full_uri(
            self._environ[_ADDRESS], headers=None if token is None else {"Authorization": token}
        )
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "token": answer["Token"],
            "expiry_time": answer["Expiration"],
        }


def _failure(reason: str) -> CredentialRetrievalError:
    return CredentialRetrievalError(provider=_METHOD, error_msg=reason)
