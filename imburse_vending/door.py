"""Which vending machine a command asks, and what it says when that gives nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imburse_vending.common import CommandError, ExitCode, Place, printable

if TYPE_CHECKING:
    from imburse_auth.client import ApiSource, InvokeSource, Source, Vended, VendingFailed

_FUNCTION = re.compile(
    r"(?P<function>(?:arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:)?[A-Za-z0-9_-]+):(?P<alias>[A-Za-z0-9_-]+)"
)

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_HEADER_VALUE = re.compile(r"[ -~]{1,16384}")

_NEXT_STEPS = {
    "not_authorized": "have a rule made that lets {who} have this credential (layers/access_policy), or ask as somebody else",
    "credential_not_found": "store its key, as the secret imburse/<environment>/<name>",
    "credential_misconfigured": "whoever keeps its secret must mend it",
    "over_budget": "wait, or have the rule's @budget raised",
    "upstream_rejected": "the key was revoked, rotated elsewhere, or lacks a role: store the right one",
    "upstream_protocol": "try again; if it stays, ask Imburse's support with the correlation id in the audit record",
    "internal_error": "give the operators the request id",
    "invalid_request": "see --help",
    "refused_by_aws": "imburse-vending doctor says what AWS refuses",
    "no_aws_credentials": "aws sso login, --profile NAME, or the AWS_ variables; imburse-vending doctor looks closer",
    "unreachable": "imburse-vending doctor says where it ends",
    "unexpected_answer": "is --api, or VENDING_API, the stack's output ApiUrl?",
}
_REFUSALS = ("not_authorized", "refused_by_aws")


def source_of(place: Place, api: str | None, function: str | None, *, prove: bool = False) -> Source:
    """What vends: the API or the function that was named, else the variables' one. Raises CommandError."""
    if api and function:
        raise CommandError("--api and --function exclude each other", code=ExitCode.USAGE)
    if not function and (api := api or place.variable("VENDING_API")):
        if prove:
            raise CommandError("--prove is for --function: an API knows your role", code=ExitCode.USAGE)
        return api_source(place, api)
    function = function or place.variable("VENDING_FUNCTION")
    if not function:
        next_step = "--api URL or VENDING_API (the stack's output ApiUrl), --function, or --local for `make serve`"
        raise CommandError("which vending machine?", next_step=next_step, code=ExitCode.USAGE)
    return _function_source(place, function, prove=prove)


def api_source(place: Place, api: str) -> ApiSource:
    """The vending machine by its API. Raises CommandError for a URL that is none, or where no region is set."""
    from imburse_auth.client import ApiSource

    session = place.session()
    if session.region_name is None:
        raise CommandError("no AWS region is set", next_step="--region, or AWS_REGION", code=ExitCode.USAGE)
    try:
        return ApiSource(api, session=session, region=session.region_name)
    except ValueError as exc:
        rule = str(exc).removeprefix("base URL: ")
        raise CommandError(f"the API's URL {rule}", next_step="--api, or VENDING_API", code=ExitCode.USAGE) from None


def alias_of(function: str) -> str | None:
    """The alias in a function's name or ARN."""
    match = _FUNCTION.fullmatch(function)
    return match["alias"] if match else None


def _function_source(place: Place, function: str, *, prove: bool) -> InvokeSource:
    from imburse_auth.client import InvokeSource

    match = _FUNCTION.fullmatch(function)
    if match is None:
        next_step = "--function NAME:ALIAS: the alias is the caller (the stack's output SettlementJobCallerArn is one)"
        raise CommandError("the function is named without an alias", next_step=next_step, code=ExitCode.USAGE)
    proof: Callable[[], object] | None = None
    if prove:
        if not match["function"].startswith("arn:"):
            raise CommandError("--prove wants the ARN", next_step="--function ARN:ALIAS", code=ExitCode.USAGE)
        proof = _proof(place, match["function"])
    if place.local:
        return InvokeSource(function, client=place.client("lambda", attempts=1), proof=proof)
    return InvokeSource(function, session=place.session(), proof=proof)


def _proof(place: Place, function_arn: str) -> Callable[[], object]:
    from imburse_auth.caller_proof import CallerProof

    proof = CallerProof(function_arn, session=place.session(), sts_url=place.variable("AWS_ENDPOINT_URL_STS"))

    def fresh() -> object:
        try:
            return proof()
        except LookupError as exc:
            problem = f"no_aws_credentials: {exc}"
            raise CommandError(problem, next_step=_NEXT_STEPS["no_aws_credentials"]) from None

    return fresh


@contextmanager
def told(who: str | None = None) -> Iterator[None]:
    """Make of a VendingFailed a CommandError, with its exit code and a next step. `who` is the caller as rules name it."""
    from imburse_auth.client import VendingFailed

    try:
        yield
    except VendingFailed as exc:
        raise failure(exc, who) from None  # what it came from can hold a request, and with it a signature


def failure(exc: VendingFailed, who: str | None = None) -> CommandError:
    """What it means for whoever called the command."""
    problem = f"{exc.code}: {exc.detail}"
    if exc.upstream:
        problem += " (Imburse: " + ", ".join(f"{name} {value}" for name, value in exc.upstream.items()) + ")"
    if exc.request_id:
        problem += f" [request id {exc.request_id}]"
    next_step = _NEXT_STEPS.get(exc.code, "").format(who=f'Caller::"{who}"' if who else "you") or None
    code = ExitCode.REFUSED if exc.code in _REFUSALS else ExitCode.FAILED
    if exc.retryable:
        code = ExitCode.TRY_LATER
        after = f" in {exc.retry_after_seconds:.0f} s" if exc.retry_after_seconds else ""
        next_step = f"try again{after}" + (f"; {next_step}" if next_step else "")
    return CommandError(printable(problem), next_step=next_step, code=code)


def caller_id(arn: str) -> str | None:
    """The caller as the policy's rules name it, of the ARN that STS answers; None if no rule could."""
    from vending.access.caller import canonical_id

    try:
        return canonical_id(arn)
    except ValueError:
        return None


def checked_headers(vended: Vended) -> dict[str, str]:
    """The headers to send, none of which could be read as two, or as something else. Raises CommandError."""
    for name, value in vended.headers.items():
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise CommandError("the answer has a header that cannot be sent", next_step="tell the operators")
    return dict(vended.headers)
