"""Which credentials there are: the names of the secrets, and no secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from aws_lambda_powertools import Logger

from imburse_auth.credential import SECRET_PREFIX, CredentialId

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


def credentials(secrets_manager: SecretsManagerClient, logger: Logger) -> Iterator[CredentialId]:
    """Every secret that is named like a credential. Raises what boto3 raises."""
    pages = secrets_manager.get_paginator("list_secrets").paginate(Filters=[{"Key": "name", "Values": [SECRET_PREFIX]}])
    for secret in (secret for page in pages for secret in page["SecretList"]):
        try:
            yield CredentialId.parse(secret["Name"].removeprefix(SECRET_PREFIX))
        except ValueError:
            logger.warning("secret is not named like a credential", secret=secret["Name"])
