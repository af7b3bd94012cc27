"""AWS clients, made by botocore alone and from one session, which reads endpoints and settings once for all of them.

boto3 would add its resources and its transfers to S3, a tenth of a cold start, and nothing of them is used here.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

from botocore.config import Config
from botocore.loaders import Loader
from botocore.session import Session

from imburse_auth.late_credentials import LateCredentials

SERVICES = ("dynamodb", "lambda", "secretsmanager")


class Aws:
    """What makes clients: with the region, the credentials and the endpoints of the environment, and no call to anybody."""

    def __init__(self) -> None:
        self._lock = Lock()  # a session may be used by one thread at a time, the clients that it made by all of them
        self._session = Session()
        self._session.register_component("data_loader", _ModelLoader())
        chain = self._session.get_component("credential_provider")
        self._session.register_component("credential_provider", LateCredentials(chain, os.environ))

    def client(
        self, service: str, *, connect_seconds: float, read_seconds: float, tries: int, connections: int = 10
    ) -> Any:  # noqa: ANN401 - the callers name the type, of which botocore makes a class only now
        """A client for one of SERVICES that gives up after so many tries of so many seconds, with at most `connections` open.

        Raises what botocore raises, UnknownServiceError for another service, NoRegionError without a region.
        """
        config = Config(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"total_max_attempts": tries, "mode": "standard"},
            max_pool_connections=connections,
        )
        with self._lock:
            return self._session.create_client(service, config=config)


class _ModelLoader(Loader):
    """botocore's own, but for the list of services, for which it looks through 400 folders twice to find ours among them."""

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 - botocore's signature
        """Answer the services that clients may be made for."""
        return list(SERVICES)
