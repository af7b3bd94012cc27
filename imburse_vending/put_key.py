"""`imburse-vending put-key`: a pair from the Tenant Portal becomes a credential's current key, once Imburse takes it."""

from __future__ import annotations

import hmac
import json
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imburse_vending import common
from imburse_vending.common import STACK_NAME, CommandError, ExitCode, Place
from imburse_vending.key_input import read_bytes

if TYPE_CHECKING:
    from imburse_auth.api_key import ApiKey
    from imburse_auth.credential import CredentialId
    from imburse_vending.key_shelf import Stored

_VEND = "-vend"
_PAIR = ("publicKey", "privateKey")
_SHAPE = '{"publicKey": "...", "privateKey": "...", "accountId": "...", "tenantId": "..."}'

EXAMPLES = """[bold]Examples[/bold]

imburse-vending put-key sandbox/tenant-a --local    # asks for the pair; the private key is not shown

imburse-vending put-key sandbox/tenant-a --from-file tenant-a.secret.json && shred -u tenant-a.secret.json

Exit codes: 0 it is stored, or was already; 1 it is not: Imburse refuses it, or it is another's; 3 AWS refuses; 4 try later.
"""


def put_key(
    credential: common.Credential,
    from_file: Annotated[
        Path | None,
        typer.Option("--from-file", metavar="FILE", help=f"{_SHAPE}; - is standard input. Without it, you are asked."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url", metavar="URL", help="Where to check it; else where the vend function is told to go."
        ),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option("--stack", metavar="NAME", help=f"The stack; {STACK_NAME}-<environment> if it is not said."),
    ] = None,
    kms_key_id: Annotated[
        str | None, typer.Option("--kms-key-id", metavar="ID", help="Of a new secret; alias/<stack> if it is not said.")
    ] = None,
    *,
    as_json: common.AsJson = False,
    local: common.Local = False,
    profile: common.Profile = None,
    region: common.Region = None,
) -> None:
    """Store a key pair as the credential's new version, after Imburse took it and named the same account and tenant.

    What else the secret holds stays as it is, and the old key stays in it as AWSPREVIOUS. A pair that Imburse refuses, or that
    is of another tenant, is not stored. The pair is never an argument: a shell's history and every `ps` would have it.
    """
    from imburse_auth.credential import CredentialId
    from imburse_vending import key_check, key_shelf

    named = CredentialId.parse(credential)
    place = Place.of(local=local, profile=profile, region=region)
    stack = stack or _stack_of(place, named)
    client = place.client("secretsmanager")
    seen = key_shelf.current(client, named)
    if seen:
        key_shelf.check_no_rotation(client, named)  # before anybody types a key in
    members = _merged(_from_file(from_file) if from_file else _asked(new=seen is None), seen)
    key = _api_key(members)
    key_check.check(named, key, key_check.hosts(place, named, f"{stack}{_VEND}", base_url))
    stored = not _same_pair(members, seen)
    version = seen.version if seen else ""
    if stored:
        members["createdAt"] = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        version = key_shelf.store(client, named, members, seen=seen, kms_key_id=kms_key_id or f"alias/{stack}")
    previous = seen.members.get("publicKey") if seen and stored else None
    data = {"credential": credential, "publicKey": key.public_key, "stored": stored, "version": version}
    common.emit(data | {"previousPublicKey": previous}, common.pairs(_told(data, previous)), as_json=as_json)


def _stack_of(place: Place, credential: CredentialId) -> str:
    """The stack of this shell's vend function, else the one that is named like the environment."""
    function = (place.variable("VENDING_FUNCTION") or "").split(":function:")[-1].split(":")[0]
    if function.endswith(_VEND):
        return function.removesuffix(_VEND)
    return STACK_NAME if place.local else f"{STACK_NAME}-{credential.environment}"


def _from_file(path: Path) -> dict[str, Any]:
    content = read_bytes(path, "--from-file")
    if path.is_file() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        common.note(f"{path} can be read by others on this machine: chmod 600 it, and shred it afterwards")
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):
        members = None
    # Outside the `except`: a JSON error carries the whole text, key included.
    if not isinstance(members, dict):
        raise CommandError("--from-file: must be a JSON object", next_step=f"like {_SHAPE}", code=ExitCode.USAGE)
    for name in _PAIR:
        if name not in members:
            raise CommandError(f"--from-file: {name} is missing", next_step=f"like {_SHAPE}", code=ExitCode.USAGE)
    return members


def at_terminal() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty()


def _asked(*, new: bool) -> dict[str, Any]:
    if not at_terminal():
        raise CommandError(
            "no key was given", next_step="--from-file FILE, or a terminal to ask at", code=ExitCode.USAGE
        )
    members = {"publicKey": typer.prompt("public key", err=True).strip()}
    members["privateKey"] = typer.prompt("private key (not shown)", hide_input=True, err=True).strip()
    if new:
        common.note("the credential is new, so it also needs to be known whose it is")
        members["accountId"] = typer.prompt("account id", err=True).strip()
        tenant_id = typer.prompt("tenant id (Enter for an account's key)", default="", show_default=False, err=True)
        members |= {"tenantId": tenant_id.strip()} if tenant_id.strip() else {}
    return members


def _merged(given: Mapping[str, Any], seen: Stored | None) -> dict[str, Any]:
    """The secret as it is to be: what it holds, with the new pair. Raises CommandError where the file says otherwise."""
    if seen is None:
        if "accountId" not in given:
            problem = "the credential is new, so accountId is needed too, and tenantId unless it is an account's key"
            raise CommandError(problem, next_step=f"like {_SHAPE}")
        return dict(given)
    for name in given.keys() - {*_PAIR, "createdAt"}:
        if given[name] == seen.members.get(name):
            continue
        if name in ("accountId", "tenantId"):
            raise CommandError(
                f"{name}: the secret has another one, so this pair is not for this credential",
                next_step="put it under a name of its own, <environment>/<name>",
            )
        raise CommandError(
            f"{name}: differs from the secret's, and put-key changes the pair alone",
            next_step="leave it out of the file",
        )
    return {**seen.members, **{name: given[name] for name in _PAIR}}


def _api_key(members: Mapping[str, Any]) -> ApiKey:
    from imburse_auth.api_key import ApiKey
    from imburse_auth.errors import CredentialMisconfigured

    try:
        return ApiKey.from_secret(json.dumps({name: value for name, value in members.items() if name != "createdAt"}))
    except CredentialMisconfigured as exc:
        raise CommandError(
            f"{exc}; nothing was stored", next_step="take it from the portal as it stands there"
        ) from None


def _same_pair(members: Mapping[str, Any], seen: Stored | None) -> bool:
    return seen is not None and all(
        hmac.compare_digest(str(members[name]).encode(), str(seen.members.get(name)).encode()) for name in _PAIR
    )


def _told(data: Mapping[str, Any], previous: str | None) -> dict[str, object]:
    if not data["stored"]:
        return {
            data["credential"]: f"has this pair already ({data['publicKey']}), and Imburse takes it: nothing to store"
        }
    told: dict[str, object] = {data["credential"]: f"{data['publicKey']} is its key now, as version {data['version']}"}
    if previous:
        told["vending"] = "uses it within 5 minutes, and at once where the old one is refused"
        told["old key"] = f"{previous}: delete it in the Tenant Portal in an hour, when nobody holds it any more"
    return told
