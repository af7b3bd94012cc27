"""The versions of a credential's secret, as rotation sees them: read fresh, and always by a named stage or id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import CredentialMisconfigured, CredentialNotFound

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"

# Not there, marked for deletion, or a version that Secrets Manager has announced and nobody has given a value yet.
_NOTHING = {"ResourceNotFoundException", "InvalidRequestException"}


@dataclass(frozen=True)
class Version:
    """One version: its id, the members of its JSON (with the private key: not in repr), and the key that they are."""

    id: str
    members: Mapping[str, Any] = field(repr=False)
    api_key: ApiKey


class Versions:
    """Reads and writes one credential's secret. Everything raises what boto3 raises."""

    def __init__(self, client: SecretsManagerClient, credential: CredentialId) -> None:
        self._client = client
        self._name = credential.secret_name

    def stages(self) -> dict[str, tuple[str, ...]]:
        """Version id to its stages; a version without any is as good as deleted. Raises CredentialNotFound."""
        try:
            listed = self._client.describe_secret(SecretId=self._name).get("VersionIdsToStages", {})
        except ClientError as exc:
            if _code(exc) in _NOTHING:
                raise CredentialNotFound("there is no such credential", reason=_code(exc)) from exc
            raise
        return {version: tuple(stages) for version, stages in listed.items()}

    def current(self) -> Version:
        """The version in use. Raises CredentialNotFound and CredentialMisconfigured."""
        text = self._text(VersionStage=CURRENT)
        if text is None:
            raise CredentialNotFound("there is no such credential")
        return _version(*text)

    def pending(self, token: str) -> Version | None:
        """The version of that id, which is to be the next, or None while it has no value. Raises CredentialMisconfigured."""
        text = self._text(VersionId=token, VersionStage=PENDING)
        return None if text is None else _version(*text)

    def has_value(self, token: str) -> bool:
        """Whether the version of that id was given one, also if it has no stage any more."""
        return self._text(VersionId=token) is not None

    def store(self, token: str, members: Mapping[str, Any]) -> None:
        """Give the version of that id its value, as the one that is to be the next."""
        self._client.put_secret_value(
            SecretId=self._name, ClientRequestToken=token, SecretString=json.dumps(members), VersionStages=[PENDING]
        )

    def make_current(self, token: str, *, instead_of: str) -> None:
        """Move AWSCURRENT to that version, which Secrets Manager refuses if it is not on `instead_of`."""
        self._client.update_secret_version_stage(
            SecretId=self._name, VersionStage=CURRENT, MoveToVersionId=token, RemoveFromVersionId=instead_of
        )

    def settle(self, token: str) -> None:
        """Take AWSPENDING off that version, whose rotation is over."""
        self._client.update_secret_version_stage(SecretId=self._name, VersionStage=PENDING, RemoveFromVersionId=token)

    def public_keys(self) -> dict[str, set[str]]:
        """The public key of each version that has a stage, to its stages. Raises CredentialMisconfigured.

        Looser than ApiKey, since it says what must not be deleted: a secret with a wrong field still names its key.
        """
        found: dict[str, set[str]] = {}
        for version, stages in self.stages().items():
            text = self._text(VersionId=version, VersionStage=stages[0]) if stages else None
            public_key = None if text is None else _members(text[1]).get("publicKey")
            if isinstance(public_key, str):
                found.setdefault(public_key, set()).update(stages)
        return found

    def _text(self, **which: str) -> tuple[str, str] | None:
        try:
            answer = self._client.get_secret_value(SecretId=self._name, **which)
        except ClientError as exc:
            if _code(exc) in _NOTHING:
                return None
            raise
        text = answer.get("SecretString")
        if text is None:
            raise CredentialMisconfigured("secret: must be text, not binary")
        return answer["VersionId"], text


def _version(version: str, text: str) -> Version:
    return Version(version, _members(text), ApiKey.from_secret(text))


def _members(text: str) -> Mapping[str, Any]:
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        # `from None`: a JSON error carries the whole text, key included.
        raise CredentialMisconfigured("secret: must be valid JSON") from None
    if not isinstance(members, dict):
        raise CredentialMisconfigured("secret: must be a JSON object")
    return members


def _code(exc: ClientError) -> str:
    return exc.response.get("Error", {}).get("Code", "")
