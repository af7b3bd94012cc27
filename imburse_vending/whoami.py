"""`imburse-vending whoami`: as whom we ask, and what a credential reaches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imburse_vending import common, door, imburse_call
from imburse_vending.common import CommandError, ExitCode, Place

if TYPE_CHECKING:
    import boto3

EXAMPLES = """[bold]Examples[/bold]

imburse-vending whoami    # as whom you ask

imburse-vending whoami sandbox/tenant-a --local --vend

imburse-vending whoami sandbox/tenant-a --json | jq .tenants
"""


def whoami(
    credential: Annotated[
        str | None,
        typer.Argument(metavar="CREDENTIAL", help="<environment>/<name>.", callback=common.known_form),
    ] = None,
    vend: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--vend", help="Look with a token of your own, for who may `vend` and not `inspect`. It is spent by it."
        ),
    ] = False,
    *,
    as_json: common.AsJson = False,
    local: common.Local = False,
    profile: common.Profile = None,
    region: common.Region = None,
    api: common.Api = None,
    function: common.Function = None,
    prove: common.Prove = False,
) -> None:
    """Tell as whom you ask, and what a credential reaches.

    That is its key's accounts and tenants. The policy must let you `inspect` the credential, through the API; or `vend` it,
    with --vend.
    """
    place = Place.of(local=local, profile=profile, region=region)
    data: dict[str, Any] = {"askedAs": asked_as(place)}
    if credential is not None:
        reached = (
            _by_token(place, credential, api, function, prove=prove)
            if vend
            else _by_identity(place, credential, api, function)
        )
        data |= {"credential": credential, **reached}
    shown = {"asked as": data["askedAs"]}
    if credential is not None:
        shown |= {"credential": credential, "accounts": _lines(data["accounts"]), "tenants": _lines(data["tenants"])}
    common.emit(data, common.pairs(shown), as_json=as_json)


def asked_as(place: Place) -> str:
    """The ARN that STS vouches for, else the access key id. Raises CommandError where there are no credentials."""
    session = place.session()
    key_id = access_key_id(session)
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        arn: str = place.client("sts").get_caller_identity()["Arn"]
    except (BotoCoreError, ClientError, CommandError):
        return f"access key {key_id}"  # STS is out of reach, or not there as on the local stack: what we know, we tell
    return arn


def access_key_id(session: boto3.Session) -> str:
    """Of the credentials that will sign. Raises CommandError where there are none, or they cannot be had."""
    from botocore.exceptions import BotoCoreError, ClientError

    next_step = "aws sso login, --profile NAME, or the AWS_ variables"
    try:
        credentials = session.get_credentials()
        frozen = None if credentials is None else credentials.get_frozen_credentials()
    except (BotoCoreError, ClientError) as exc:
        problem = f"the AWS credentials cannot be had ({type(exc).__name__})"
        raise CommandError(problem, next_step=next_step, code=ExitCode.REFUSED) from None
    if frozen is None or not frozen.access_key:
        raise CommandError("there are no AWS credentials", next_step=next_step, code=ExitCode.USAGE)
    return frozen.access_key


def _by_identity(place: Place, credential: str, api: str | None, function: str | None) -> dict[str, Any]:
    api = api or place.variable("VENDING_API")
    if function or not api:
        raise CommandError(
            "a function has no identity to ask for", next_step="--vend, or --api URL", code=ExitCode.USAGE
        )
    from imburse_auth.client import VendingFailed

    try:
        answer = door.api_source(place, api).identity(credential)
    except VendingFailed as exc:
        error = door.failure(exc)
        if error.code is ExitCode.REFUSED:
            next_step = "--vend, if you may `vend` it; else a rule must let you `inspect` it"
            raise CommandError(error.problem, next_step=next_step, code=error.code) from None
        raise error from None
    return {"accounts": answer.get("accounts", []), "tenants": answer.get("tenants", [])}


def _by_token(place: Place, credential: str, api: str | None, function: str | None, *, prove: bool) -> dict[str, Any]:
    from imburse_auth.errors import UpstreamProtocol
    from imburse_auth.identity import IDENTITY_PATH, Identity

    source = door.source_of(place, api, function, prove=prove)
    with common.progress("vending"), door.told():
        tokens = source.tokens(credential)
    if not tokens:
        raise CommandError("no token came", next_step="try again", code=ExitCode.TRY_LATER)
    reply = imburse_call.send(tokens[0], "GET", IDENTITY_PATH)
    if reply.status != 200:
        raise CommandError(
            f"Imburse answered {reply.status}", next_step=f"imburse-vending call GET {IDENTITY_PATH} {credential}"
        )
    try:
        found = Identity.from_answer(reply.document())
    except (UpstreamProtocol, ValueError, RecursionError):
        raise CommandError("Imburse's answer on the identity cannot be read") from None
    return {"accounts": found.accounts, "tenants": found.tenants}


def _lines(entries: list[Any]) -> str:
    """One a line: the ids and names of each, or its JSON where it has none."""
    return "\n".join(common.printable(_line(entry)) for entry in entries) or "none"


def _line(entry: object) -> str:
    if isinstance(entry, dict) and all(isinstance(value, str) for value in entry.values()):
        return "  ".join(f"{name} {value}" for name, value in entry.items())
    return json.dumps(entry, ensure_ascii=False)
