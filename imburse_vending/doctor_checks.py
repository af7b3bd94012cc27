"""The checks of `doctor`, one a method, in the order in which things usually fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from imburse_vending import door, imburse_call, whoami
from imburse_vending.common import CommandError, ExitCode, Place, printable
from imburse_vending.doctor_network import date_of, reach
from imburse_vending.doctor_walk import Check, Result, State
from imburse_vending.when import how_long

if TYPE_CHECKING:
    from imburse_auth.client import Source, Vended, VendingFailed

WINDOW_SECONDS = 300  # how old a signature may be, for AWS and for Imburse
NOTICED_SKEW_SECONDS = 30


@dataclass
class Patient:
    """What is examined; `offsets` are the clocks that were seen, in seconds ahead of ours, by whose they are."""

    place: Place
    api: str | None = None
    function: str | None = None
    credential: str | None = None
    vend: bool = False
    prove: bool = False
    clock: Callable[[], float] = time.time
    offsets: dict[str, float] = field(default_factory=dict)
    arn: str | None = None
    token: Vended | None = None
    _source: Source | None = None

    def checks(self) -> tuple[Check, ...]:
        """All of them, in order."""
        return (
            Check("AWS credentials", self.credentials),
            Check("AWS region", self.region),
            Check("AWS identity", self.identity, ("AWS credentials", "AWS region")),
            Check("vending machine", self.address, ("AWS region",)),
            Check("network", self.network, ("vending machine",)),
            Check("clock", self.clocks),
            Check("way in", self.way_in, ("AWS credentials", "AWS identity", "network", "clock")),
            Check("policy", self.policy, ("way in",)),
            Check("Imburse", self.imburse, ("policy",)),
        )

    def credentials(self) -> Result:
        """There are AWS credentials, and they can be had."""
        session = self.place.session()
        key_id = whoami.access_key_id(session)
        method = getattr(session.get_credentials(), "method", None)
        where = "the local stack" if self.place.local else _SOURCES.get(method or "", method or "somewhere")
        return Result(State.OK, f"{printable(key_id)}, from {where}")

    def region(self) -> Result:
        """A region is set."""
        region = self.place.session().region_name
        if not region:
            return Result(State.FAILED, "none is set", "--region NAME, or AWS_REGION", ExitCode.USAGE)
        return Result(State.OK, region)

    def identity(self) -> Result:
        """STS knows the credentials. Where STS cannot be reached, nothing is said: vending does not need it."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = self.place.client("sts").get_caller_identity()
        except ClientError as exc:
            self._see_date("STS", exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"))
            code = printable(str(exc.response.get("Error", {}).get("Code")))
            fix = _STS_FIXES.get(code, "get new AWS credentials")
            return Result(State.FAILED, f"STS says {code}", fix, ExitCode.REFUSED)
        except (BotoCoreError, CommandError) as exc:
            return Result(State.SKIPPED, f"STS cannot be asked ({type(exc).__name__ if not _ours(exc) else exc})")
        self._see_date("STS", answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"))
        self.arn = str(answer["Arn"])
        return Result(State.OK, self.arn)

    def address(self) -> Result:
        """It is said which API or function to ask."""
        self._source = door.source_of(self.place, self.api, self.function, prove=self.prove)
        self.api = None if self.function else (self.api or self.place.variable("VENDING_API"))
        self.function = None if self.api else (self.function or self.place.variable("VENDING_FUNCTION"))
        return Result(State.OK, f"the API {self.api}" if self.api else f"the function {self.function}")

    def network(self) -> Result:
        """Its host has an address, takes connections, and proves by TLS that it is the one."""
        url = self.api or str(self.place.client("lambda").meta.endpoint_url)
        return reach(url)

    def clocks(self) -> Result:
        """Our clock agrees with that of whoever told the time."""
        if not self.offsets and self.api:
            self._see_date("the API", date_of(self.api))
        if not self.offsets:
            return Result(State.SKIPPED, "nobody told the time")
        (whose, ahead), *_ = self.offsets.items()
        skew = f"{how_long(ahead)} {'behind' if ahead > 0 else 'ahead of'} {whose}"
        if abs(ahead) > WINDOW_SECONDS:
            return Result(State.FAILED, skew, "set the clock (NTP): signatures live five minutes", ExitCode.FAILED)
        if abs(ahead) > NOTICED_SKEW_SECONDS:
            return Result(State.OK, f"{skew}, of the five minutes that are allowed")
        return Result(State.OK, f"agrees with {whose}")

    def way_in(self) -> Result:
        """IAM lets us in: asked for 0 tokens, the machine itself says no, which costs nothing."""
        from imburse_auth.client import VendingFailed

        assert self._source is not None  # noqa: S101 - `network` needs `address`
        try:
            self._source.tokens(self.credential or "sandbox/doctor", 0)
        except VendingFailed as exc:
            if exc.code == "invalid_request":
                return Result(State.OK, "IAM lets you call it, and it answers")
            if exc.code == "not_authorized":
                fix = "give an alias: --function NAME:ALIAS" if self.function else "call it as an IAM role"
                return Result(State.FAILED, "it answers, but nobody vouches for who you are", fix, ExitCode.REFUSED)
            error = door.failure(exc)
            return Result(State.FAILED, error.problem, _way_in_fix(exc) or error.next_step, error.code)
        return Result(State.FAILED, "it answered what a vending machine does not", "is this the right address?")

    def policy(self) -> Result:
        """A real vend, if that is wanted."""
        if self.credential is None or not self.vend:
            how = "--vend" if self.credential else "a CREDENTIAL and --vend"
            return Result(State.SKIPPED, f"not tried: {how} would, at the cost of a token")
        assert self._source is not None  # noqa: S101 - `way in` needs `address`
        with door.told(who=self._caller()):
            self.token = self._source.tokens(self.credential)[0]
        return Result(State.OK, f"a token, good for {how_long(self.token.expires - self.clock())}")

    def imburse(self) -> Result:
        """Imburse takes the token."""
        from imburse_auth.identity import IDENTITY_PATH

        if self.token is None:
            return Result(State.SKIPPED, "not tried: there is no token to try it with")
        reply = imburse_call.send(self.token, "GET", IDENTITY_PATH)
        if reply.status != 200:
            fix = f"imburse-vending call GET {IDENTITY_PATH} {self.credential} shows what it says"
            return Result(State.FAILED, f"{imburse_call.host(self.token.base_url)} answers {reply.status}", fix)
        return Result(State.OK, f"{imburse_call.host(self.token.base_url)} takes it, in {reply.seconds * 1000:.0f} ms")

    def _caller(self) -> str | None:
        if self.function and not self.prove:
            return f"alias/{door.alias_of(self.function)}"
        return door.caller_id(self.arn) if self.arn else None

    def _see_date(self, whose: str, header: str | None) -> None:
        try:
            self.offsets[whose] = parsedate_to_datetime(header or "").timestamp() - self.clock()
        except (ValueError, TypeError, OverflowError):
            return


_SOURCES = {
    "env": "the environment",
    "shared-credentials-file": "the credentials file",
    "config-file": "the config file",
    "sso": "AWS SSO",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a web identity",
    "iam-role": "the instance's role",
    "container-role": "the container's role",
    "custom-process": "a credential process",
}
_NO_SUCH_THING = "take the address from the stack's outputs: ApiUrl, or an alias such as SettlementJobCallerArn"
_REFUSAL_FIXES = {
    "AccessDenied": "give your role the policy of the stack's output ApiCallerPolicy (an alias: SettlementJobCallerPolicy)",
    "MissingAuthenticationToken": _NO_SUCH_THING,
    "Forbidden": _NO_SUCH_THING,
    "ResourceNotFound": _NO_SUCH_THING,
    "Signature": "give the region that it is in, --region; else look at the keys, and at the clock",
    "UnrecognizedClient": "take credentials of the account that it is in",
    "ExpiredToken": "aws sso login, or get new ones",
}
_STS_FIXES = {
    "ExpiredToken": "they have expired: aws sso login, or get new ones",
    "ExpiredTokenException": "they have expired: aws sso login, or get new ones",
    "InvalidClientTokenId": "AWS does not know this access key: is it the right account, and still active?",
    "SignatureDoesNotMatch": "the secret access key is not this access key's, or the clock is wrong: see below",
    "RequestExpired": "the clock is wrong: see below",
}


def _way_in_fix(exc: VendingFailed) -> str | None:
    if exc.code == "unreachable":
        return "try again: its network answered, and it did not"
    if exc.code != "refused_by_aws":
        return None
    other = "look the error up in the AWS documentation"  # not that the doctor knows: this is the doctor
    return next((fix for name, fix in _REFUSAL_FIXES.items() if name in exc.detail), other)


def _ours(exc: Exception) -> bool:
    return isinstance(exc, CommandError)
