"""A role's AWS credentials, read at the first request instead of when a client is made.

A function with SnapStart has no AWS_ACCESS_KEY_ID: its runtime gives the role's credentials out at an address of its own.
botocore asks there when a client is made, which is during init, and the role's credentials would be part of the snapshot,
which everything that Lambda restores begins with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from botocore.credentials import DeferredRefreshableCredentials
from botocore.utils import ContainerMetadataFetcher

_ADDRESS = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_AUTHORIZATION = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
_IN_THE_ENVIRONMENT = "AWS_ACCESS_KEY_ID"


class _Chain(Protocol):
    def load_credentials(self) -> Any:  # noqa: ANN401 - botocore's own
        ...


class LateCredentials:
    """Takes the place of botocore's chain of credential providers, which it asks wherever the runtime is not SnapStart's.

    `environ` is looked at again at each refresh: what a restored environment is told counts, not what the snapshot was.
    """

    def __init__(self, chain: _Chain, environ: Mapping[str, str]) -> None:
        self._chain = chain
        self._environ = environ

    def load_credentials(self) -> Any:  # noqa: ANN401 - botocore's own
        """Credentials, or with SnapStart what will ask for them when they are used."""
        if _ADDRESS not in self._environ or _IN_THE_ENVIRONMENT in self._environ:
            return self._chain.load_credentials()
        return DeferredRefreshableCredentials(self._read, "container-role")

    def _read(self) -> dict[str, str]:
        """Ask the runtime. Raises what botocore raises, a BotoCoreError."""
        token = self._environ.get(_AUTHORIZATION)
        headers = None if token is None else {"Authorization": token}
        answer = ContainerMetadataFetcher().retrieve_full_uri(self._environ[_ADDRESS], headers=headers)
        return {
            "access_key": answer["AccessKeyId"],
            "secret_key": answer["SecretAccessKey"],
            "token": answer["Token"],
            "expiry_time": answer["Expiration"],
        }
