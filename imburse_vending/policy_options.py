"""The options of `imburse-vending policy`, and the question that they make up."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imburse_vending import common
from imburse_vending.common import CommandError, ExitCode

if TYPE_CHECKING:
    from imburse_auth.credential import CredentialId
    from imburse_vending.policy_ask import Question
    from vending.access.policy import System


class Action(StrEnum):
    """What can be done with a credential."""

    VEND = "vend"
    INSPECT = "inspect"
    OPERATE = "operate"


class Via(StrEnum):
    """The doors."""

    API = "api"
    INVOKE = "invoke"
    PROOF = "proof"


class Expected(StrEnum):
    """A decision."""

    ALLOWED = "allowed"
    DENIED = "denied"


Policy = Annotated[Path | None, typer.Option("--policy", metavar="FILE", help="Ask this file.")]
Stage = Annotated[str | None, typer.Option("--stage", help="Ask this stage's file, or `all`; dev if nothing is said.")]


def _twelve_digits(text: str | None) -> str | None:
    if text is not None and not re.fullmatch("[0-9]{12}", text):
        raise typer.BadParameter("must be twelve digits")
    return text


Account = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="DIGITS",
        help="The machine's own account, to which aliases belong; else the only one that rules name.",
        callback=_twelve_digits,
    ),
]
OptionalCredential = Annotated[
    str | None,
    typer.Argument(
        metavar="CREDENTIAL", help="<environment>/<name>; none for the whole machine.", callback=common.known_form
    ),
]


def resource_of(action: Action, credential: str | None) -> CredentialId | System:
    """What is asked about. Raises CommandError if that is not said."""
    from imburse_auth.credential import CredentialId
    from vending.access.policy import System

    if credential is not None:
        return CredentialId.parse(credential)
    if action is Action.OPERATE:
        return System()
    raise CommandError(f"which credential? {action} is about one", next_step="sandbox/tenant-a", code=ExitCode.USAGE)


def question_of(
    name: str,
    own_account: str,
    action: Action,
    resource: CredentialId | System,
    count: int,
    via: Via | None,
    source_ip: str | None,
    vpce: str | None,
) -> Question:
    """What would be asked at the door. Raises CommandError for what cannot come through it."""
    import ipaddress

    from imburse_vending.policy_ask import Question, caller, through

    try:
        asking = caller(name, own_account)
        if source_ip is not None:
            ipaddress.ip_address(source_ip)
    except ValueError as exc:
        raise CommandError(str(exc), next_step="a role's ARN or alias/<name>", code=ExitCode.USAGE) from None
    door = via or Via(asking.via)
    if (door is Via.INVOKE) != asking.id.startswith("alias/"):
        problem = (
            "an alias comes by invoke, and an ARN by api or proof: without a proof, who invokes an alias is that alias"
        )
        raise CommandError(problem, code=ExitCode.USAGE)
    if door is not Via.API and (source_ip or vpce):
        raise CommandError("only the API knows a source IP and an endpoint", code=ExitCode.USAGE)
    if count > 1 and action is not Action.VEND:
        raise CommandError("--count: only a vend has more than one", code=ExitCode.USAGE)
    return Question(through(asking, door.value, source_ip, vpce), action.value, resource, count)
