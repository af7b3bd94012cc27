"""A credential's secret, as put-key reads and writes it. What boto3 raises beyond what is said here goes through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imburse_auth.credential import CredentialId
from imburse_vending.common import CommandError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_CURRENT = "AWSCURRENT"  # always named: moto answers a stale version without
_PENDING = "AWSPENDING"


@dataclass(frozen=True)
class Stored:
    """The version in use: its id, and the members of its JSON, private key among them."""

    version: str
    members: Mapping[str, Any] = field(repr=False)


def current(client: SecretsManagerClient, credential: CredentialId) -> Stored | None:
    """What is stored, or None if there is no such secret or it has no value. Raises CommandError."""
    from botocore.exceptions import ClientError

    try:
        answer = client.get_secret_value(SecretId=credential.secret_name, VersionStage=_CURRENT)
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code")
        if code == "ResourceNotFoundException":
            return None
        if code == "InvalidRequestException":
            raise CommandError(
                f"the secret {credential.secret_name} is marked for deletion",
                next_step=f"aws secretsmanager restore-secret --secret-id {credential.secret_name}",
            ) from exc
        raise
    try:
        members = json.loads(answer["SecretString"])
    except (KeyError, ValueError, RecursionError):
        members = None  # refused below, outside of `except`: a JSON error carries the whole text, key included
    if not isinstance(members, dict):
        raise CommandError(
            f"the secret {credential.secret_name} is not a JSON object, so what it holds besides the key cannot be kept",
            next_step="mend it by hand, or delete it and let put-key make it anew",
        )
    return Stored(answer["VersionId"], members)


def check_no_rotation(client: SecretsManagerClient, credential: CredentialId) -> None:
    """Raise CommandError while a rotation is under way: its last step would make its own key current, and this one not."""
    name = credential.secret_name
    stages = client.describe_secret(SecretId=name).get("VersionIdsToStages", {})
    pending = next((version for version, has in stages.items() if _PENDING in has), None)
    if pending is not None:
        raise CommandError(
            f"a rotation of {name} is under way, and would put its own key in the place of this one",
            next_step=f"wait until it is done; or give it up (on AWS first: aws secretsmanager cancel-rotate-secret --secret-id"
            f" {name}): aws secretsmanager update-secret-version-stage --secret-id {name} --version-stage {_PENDING}"
            f" --remove-from-version-id {pending}",
        )


def store(
    client: SecretsManagerClient,
    credential: CredentialId,
    members: Mapping[str, Any],
    *,
    seen: Stored | None,
    kms_key_id: str,
) -> str:
    """Make these the current version, and answer its id; the one before stays as AWSPREVIOUS. A new secret is made if need be.

    `seen` is what the members were made from. Raises CommandError if it is not what is stored any more.
    """
    from botocore.exceptions import ClientError

    now = current(client, credential)
    if (now and now.version) != (seen and seen.version):
        raise CommandError(
            "somebody else changed the secret in the meantime, so nothing was stored", next_step="look, and do it again"
        )
    if now:
        check_no_rotation(client, credential)
    text = json.dumps(members)
    if seen is None:
        try:
            made = client.create_secret(
                Name=credential.secret_name, SecretString=text, KmsKeyId=kms_key_id, Description="An Imburse API key"
            )
        except ClientError as exc:
            if exc.response.get("Error", {}).get("Code") != "ResourceExistsException":
                raise
        else:
            return made["VersionId"]
    # It exists, with a value or (the template of somebody made it) without.
    return client.put_secret_value(SecretId=credential.secret_name, SecretString=text)["VersionId"]
