"""The store on boto3 and moto: what Secrets Manager really answers."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from imburse_auth import ApiKey, CredentialId
from imburse_auth.errors import CredentialMisconfigured, CredentialNotFound
from imburse_auth.secrets import SecretStore
from tests.fakes import Clock, secret

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

A = CredentialId("sandbox", "tenant-a")


def key_of(members: dict[str, Any]) -> ApiKey:
    return ApiKey.from_secret(json.dumps(members))


def test_the_current_version_is_read_also_after_a_rotation(secrets_manager: "SecretsManagerClient") -> None:
    old, new = secret(), secret()
    secrets_manager.create_secret(Name=A.secret_name, SecretString=json.dumps(old))
    clock = Clock()
    store = SecretStore(secrets_manager, monotonic=clock)
    assert store.get(A) == key_of(old)

    put = secrets_manager.put_secret_value(
        SecretId=A.secret_name, SecretString=json.dumps(new), VersionStages=["AWSPENDING"]
    )
    clock.now += 301
    assert store.get(A) == key_of(old), "a pending version is not vended with"

    current = next(
        version
        for version, stages in secrets_manager.describe_secret(SecretId=A.secret_name)["VersionIdsToStages"].items()
        if "AWSCURRENT" in stages
    )
    secrets_manager.update_secret_version_stage(
        SecretId=A.secret_name, VersionStage="AWSCURRENT", MoveToVersionId=put["VersionId"], RemoveFromVersionId=current
    )
    clock.now += 301
    assert store.get(A) == key_of(new)


def test_a_secret_that_is_not_there_is_not_found(secrets_manager: "SecretsManagerClient") -> None:
    with pytest.raises(CredentialNotFound):
        SecretStore(secrets_manager).get(A)


def test_a_deleted_secret_is_not_found(secrets_manager: "SecretsManagerClient") -> None:
    secrets_manager.create_secret(Name=A.secret_name, SecretString=json.dumps(secret()))
    secrets_manager.delete_secret(SecretId=A.secret_name)
    with pytest.raises(CredentialNotFound):
        SecretStore(secrets_manager).get(A)


def test_a_binary_secret_is_misconfigured(secrets_manager: "SecretsManagerClient") -> None:
    secrets_manager.create_secret(Name=A.secret_name, SecretBinary=b"\x00")
    with pytest.raises(CredentialMisconfigured):
        SecretStore(secrets_manager).get(A)
