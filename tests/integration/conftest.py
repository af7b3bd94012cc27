"""Integration tests: real boto3 against moto in this process, handlers with the real event files, no other network."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from tests.machine import ENVIRON

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


@pytest.fixture(autouse=True)
def _environment(socket_disabled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variables of a function; moto answers inside this process, so sockets stay blocked."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def secrets_manager(_environment: None) -> Iterator["SecretsManagerClient"]:
    """An empty Secrets Manager."""
    with mock_aws():
        yield boto3.client("secretsmanager")
