"""AWS Signature Version 4, seen from the receiving side.

The signature is recomputed with botocore's own ``SigV4Auth`` over what arrived, so the two sides cannot drift apart.
Messages and error types are those of API Gateway; what else it is good for says so by its arguments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HTTPHeaders
from botocore.credentials import Credentials

SERVICE = "execute-api"
WINDOW = timedelta(minutes=5)

_ALGORITHM = "AWS4-HMAC-SHA256"
_BASIC_FORMAT = "%Y%m%dT%H%M%SZ"
_PARAMETERS = ("Credential", "SignedHeaders", "Signature")
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key"
    " and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True)
class WireRequest:
    """An HTTP request as it arrived: ``target`` begins with a slash, is path and query, and is still percent-encoded."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        """The path, still percent-encoded."""
        return _split(self.target).path

    @property
    def query(self) -> str:
        """The query string, still percent-encoded, without its question mark."""
        return _split(self.target).query

    def values(self, name: str) -> list[str]:
        """Answer every value of a header, in order; ``name`` in lower case."""
        return [value for key, value in self.headers if key.lower() == name]


class SignatureRefused(Exception):
    """The signature is missing or wrong. ``error_type`` goes into x-amzn-ErrorType."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message


@dataclass(frozen=True)
class _Claim:
    """What the Authorization header says."""

    access_key_id: str
    date: str
    region: str
    service: str
    terminator: str
    signed_headers: tuple[str, ...]
    signature: str


class _Recomputed(SigV4Auth):
    """botocore's signer, told which headers were signed and to trust no hash but the body's own."""

    def __init__(self, secret_access_key: str, claim: _Claim, request: WireRequest) -> None:
        super().__init__(Credentials(claim.access_key_id, secret_access_key), claim.service, claim.region)
        self._claim = claim
        self._wire = request

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:  # noqa: ARG002  (the overridden signature)
        headers = HTTPHeaders()
        for name in self._claim.signed_headers:
            for value in self._wire.values(name):
                headers[name] = _text(value)
        return headers

    def payload(self, request: AWSRequest) -> str:  # noqa: ARG002  (the overridden signature)
        # API Gateway knows no UNSIGNED-PAYLOAD: a client that signs one gets a signature that does not match.
        return hashlib.sha256(self._wire.body).hexdigest()


def verify(
    request: WireRequest,
    secret_of: Callable[[str], str | None],
    now: datetime,
    *,
    service: str = SERVICE,
    window: timedelta = WINDOW,
) -> str:
    """Answer the access key id that signed ``request``; raises SignatureRefused.

    ``secret_of`` answers the secret access key of an id, or None. Any region is accepted as long as it is the one that
    was signed with; the ``host`` header must be signed; a session token is accepted as it comes. ``window`` is how far the
    date may be from ``now`` to either side.
    """
    claim = _read_claim(request)
    signed_at = _read_date(request)
    secret = secret_of(claim.access_key_id)
    if secret is None:
        raise SignatureRefused("UnrecognizedClientException", "The security token included in the request is invalid.")
    _check_scope(claim, signed_at, service)
    _check_window(signed_at, now, window)
    if not any(hmac.compare_digest(claim.signature, mine) for mine in _signatures(request, claim, secret, signed_at)):
        raise SignatureRefused("InvalidSignatureException", _MISMATCH)
    return claim.access_key_id


def _signatures(request: WireRequest, claim: _Claim, secret: str, signed_at: datetime) -> list[str]:
    """Answer the signatures that would be right.

    There are two where the query holds a plus sign: some clients sign it as it is, others as the %20 it stands for.
    """
    signer = _Recomputed(secret, claim, request)
    signatures = []
    for query in sorted({request.query, request.query.replace("+", "%20")}):
        url = f"http://localhost{request.path}" + (f"?{query}" if query else "")
        aws_request = AWSRequest(method=request.method, url=url)
        aws_request.context["timestamp"] = signed_at.strftime(_BASIC_FORMAT)
        string_to_sign = signer.string_to_sign(aws_request, signer.canonical_request(aws_request))
        signatures.append(signer.signature(string_to_sign, aws_request))
    return signatures


def _read_claim(request: WireRequest) -> _Claim:
    given = request.values("authorization")
    if not given:
        raise SignatureRefused("MissingAuthenticationTokenException", "Missing Authentication Token")
    scheme, _, rest = given[0].partition(" ")
    parameters = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    missing = [f"Authorization header requires '{name}' parameter." for name in _PARAMETERS if not parameters.get(name)]
    if scheme != _ALGORITHM or len(given) > 1 or missing:
        raise SignatureRefused("IncompleteSignatureException", _incomplete(given[0], missing))
    credential = parameters["Credential"].split("/")
    if len(credential) < 5 or re.fullmatch("[0-9a-f]{64}", parameters["Signature"]) is None:
        raise SignatureRefused("InvalidSignatureException", _MISMATCH)
    signed_headers = tuple(parameters["SignedHeaders"].split(";"))
    # An access key id may not hold a slash, but counting from the end costs nothing and cannot be confused.
    date, region, service, terminator = credential[-4:]
    access_key_id = "/".join(credential[:-4])
    return _Claim(access_key_id, date, region, service, terminator, signed_headers, parameters["Signature"])


def _incomplete(authorization: str, missing: list[str]) -> str:
    # Like API Gateway, show the header by its hash: it may be a token meant for somebody else.
    shown = base64.b64encode(hashlib.sha256(_text(authorization).encode()).digest()).decode()
    return " ".join([*missing, f"(Hashed with SHA-256 and encoded with Base64) Authorization={shown}"])


def _read_date(request: WireRequest) -> datetime:
    """Answer when the request says it was signed, from X-Amz-Date or else Date."""
    amz_dates, dates = request.values("x-amz-date"), request.values("date")
    try:
        if len(amz_dates) == 1:
            return datetime.strptime(amz_dates[0], _BASIC_FORMAT).replace(tzinfo=UTC)
        if not amz_dates and len(dates) == 1:
            return parsedate_to_datetime(dates[0]).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise SignatureRefused(
            "IncompleteSignatureException", "Date must be in ISO-8601 'basic format', such as 20150830T123600Z."
        ) from error
    raise SignatureRefused(
        "IncompleteSignatureException",
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
    )


def _check_scope(claim: _Claim, signed_at: datetime, service: str) -> None:
    problems = {
        f"Credential should be scoped to correct service: '{service}'.": claim.service != service,
        "Credential should be scoped with a valid terminator: 'aws4_request'.": claim.terminator != "aws4_request",
        "Credential should be scoped to a valid region.": not re.fullmatch("[a-z0-9-]+", claim.region),
        "Date in Credential scope does not match the date of the request.": claim.date != f"{signed_at:%Y%m%d}",
        "'Host' must be a 'SignedHeader' in the AWS Authorization.": "host" not in claim.signed_headers,
    }
    for message, applies in problems.items():
        if applies:
            raise SignatureRefused("InvalidSignatureException", message)


def _check_window(signed_at: datetime, now: datetime, window: timedelta) -> None:
    at, here = signed_at.strftime(_BASIC_FORMAT), now.strftime(_BASIC_FORMAT)
    minutes = int(window.total_seconds()) // 60
    if signed_at < now - window:
        limit = (now - window).strftime(_BASIC_FORMAT)
        message = f"Signature expired: {at} is now earlier than {limit} ({here} - {minutes} min.)"
        raise SignatureRefused("InvalidSignatureException", message)
    if signed_at > now + window:
        limit = (now + window).strftime(_BASIC_FORMAT)
        message = f"Signature not yet current: {at} is still later than {limit} ({here} + {minutes} min.)"
        raise SignatureRefused("InvalidSignatureException", message)


def _split(target: str) -> SplitResult:
    # As an absolute URL, so that a path that begins with two slashes stays a path.
    return urlsplit(f"http://localhost{_text(target)}")


def _text(value: str) -> str:
    """Answer a header value or target as its signer saw it.

    The HTTP server reads both as UTF-8 and keeps other bytes as lone surrogates; clients write Latin-1.
    """
    if value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    return value if raw.decode("utf-8", "replace") == value else raw.decode("latin-1")
