"""What starts the rotate function: a step that Secrets Manager asks for, or the schedule's `{}`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from imburse_auth.credential import SECRET_PREFIX, CredentialId

Step = Literal["createSecret", "setSecret", "testSecret", "finishSecret"]

_REQUIRED = {"Step", "SecretId", "ClientRequestToken"}
_OPTIONAL = {"RotationToken"}  # sent when Secrets Manager rotates in the name of another role; nothing here needs it
_TOKEN = re.compile(r"[A-Za-z0-9-]{32,64}")
# Secrets Manager puts a hyphen and six characters after the name; a name alone has none.
_ARN = re.compile(r"arn:[a-z-]+:secretsmanager:[a-z0-9-]+:\d{12}:secret:(?P<name>[^:]+)-[A-Za-z0-9]{6}")


@dataclass(frozen=True)
class Asked:
    """One step of the rotation of a credential; `token` is the id of the version that becomes the new one."""

    step: Step
    credential: CredentialId
    token: str


def read(event: object) -> Asked | None:
    """The step, or None for the schedule's `{}`. Raises ValueError, which names the field and never a value."""
    if event == {}:
        return None
    if not isinstance(event, dict) or not _REQUIRED <= event.keys() <= _REQUIRED | _OPTIONAL:
        raise ValueError("event: must be {} or have Step, SecretId and ClientRequestToken, and nothing else")
    step: Any = event["Step"]
    if step not in get_args(Step):
        raise ValueError(f"Step: must be one of {', '.join(get_args(Step))}")
    token = event["ClientRequestToken"]
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ValueError("ClientRequestToken: must be 32 to 64 letters, digits or hyphens")
    return Asked(step, _credential(event["SecretId"]), token)


def _credential(secret_id: object) -> CredentialId:
    if isinstance(secret_id, str):
        arn = _ARN.fullmatch(secret_id)
        name = arn["name"] if arn else secret_id
        if name.startswith(SECRET_PREFIX):
            try:
                return CredentialId.parse(name.removeprefix(SECRET_PREFIX))
            except ValueError:
                pass
    raise ValueError(f"SecretId: must be the ARN or the name of a secret {SECRET_PREFIX}<environment>/<name>")
