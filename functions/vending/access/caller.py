"""Who is calling: only what AWS itself vouches for, never what an event or a client context says."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vending.errors import NotAuthorized

_PRINCIPAL = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):(?P<service>iam|sts)::(?P<account>[0-9]{12}):"
    r"(?P<kind>role|user|assumed-role|federated-user|root)(?:/(?P<rest>[\w+=,.@/-]{1,1024}))?",
    re.ASCII,
)
_FUNCTION = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:(?P<account>[0-9]{12}):function:[A-Za-z0-9_-]+(?::(?P<qualifier>[$A-Za-z0-9_-]+))?"
)
_ALIAS = re.compile(r"(?![0-9]+$)[A-Za-z0-9_-]{1,128}")  # all digits would be a version, which is not a caller


@dataclass(frozen=True)
class Caller:
    """An IAM principal or an alias, as the policy names it, with the account it belongs to.

    `id` is a role's ARN without path and session, another principal's ARN as it is, or `alias/<name>`. `via` says how it is
    known: API Gateway verified a signature, STS did (`vending.access.proof`), or IAM let it invoke the alias.
    """

    id: str
    account: str
    via: Literal["api", "invoke", "proof"]
    source_ip: str | None = None
    vpce: str | None = None


def from_api(event: Mapping[str, Any]) -> Caller:
    """The principal whose signature API Gateway verified. Raises NotAuthorized if it names none."""
    context = event.get("requestContext")
    identity = context.get("identity") if isinstance(context, dict) else None
    if not isinstance(identity, dict):
        raise NotAuthorized("the event is not API Gateway's")
    try:
        arn, account = _principal(str(identity.get("userArn")))
    except ValueError as exc:
        raise NotAuthorized(str(exc)) from None
    return Caller(arn, account, "api", _address(identity.get("sourceIp")), identity.get("vpceId"))


def from_invoke(invoked_function_arn: str) -> Caller:
    """The alias that was invoked: IAM decides who may invoke which. Raises NotAuthorized for a version or no alias."""
    match = _FUNCTION.fullmatch(invoked_function_arn)
    if match is None or match["qualifier"] is None or not _ALIAS.fullmatch(match["qualifier"]):
        raise NotAuthorized("the function was not invoked through an alias")
    return Caller(f"alias/{match['qualifier']}", match["account"], "invoke")


def through(invoked_function_arn: str) -> str | None:
    """The alias that was invoked, whoever came through it; None if it was none."""
    try:
        return from_invoke(invoked_function_arn).id
    except NotAuthorized:
        return None


def from_sts(arn: str) -> Caller:
    """The principal whose signature STS verified, named as through the API. Raises ValueError if the ARN is no principal's."""
    return Caller(*_principal(arn), "proof")


def unqualified(invoked_function_arn: str) -> str:
    """The ARN of the function itself, of the ARN by which `from_invoke` let somebody in: what a proof must be meant for."""
    return invoked_function_arn.rpartition(":")[0]


def canonical_id(text: str) -> str:
    """The `id` that this caller has here, of the ARN of its role or session or its `alias/<name>`.

    Raises ValueError if no caller can have it: what is said about it would never hold.
    """
    if text.startswith("alias/"):
        if not _ALIAS.fullmatch(text.removeprefix("alias/")):
            raise ValueError("the alias is not one")
        return text
    return _principal(text)[0]


def _principal(arn: str) -> tuple[str, str]:
    """The id of an IAM principal, and its account. Raises ValueError."""
    match = _PRINCIPAL.fullmatch(arn)
    if match is None:
        raise ValueError("no IAM principal is named")
    parts = (match["rest"] or "").split("/")
    # One caller is one role: its sessions come and go, and its path is no part of an assumed-role ARN.
    if match["kind"] == "assumed-role":
        if len(parts) != 2 or not all(parts):
            raise ValueError("the assumed-role ARN has no role or no session")
        return f"arn:{match['partition']}:iam::{match['account']}:role/{parts[0]}", match["account"]
    if match["kind"] == "role":
        return f"arn:{match['partition']}:iam::{match['account']}:role/{parts[-1]}", match["account"]
    return match[0], match["account"]


def _address(value: object) -> str | None:
    # API Gateway's console test puts a text here; a policy that wants an address then has none to match.
    try:
        return str(ipaddress.ip_address(value)) if isinstance(value, str) else None
    except ValueError:
        return None
