"""Between HTTP and a function: the REST (v1) proxy event, and the proxy answer.

Shapes: "Input format" and "Output format of a Lambda function for proxy integration" in the API Gateway guide.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from local.api_caller import LocalCaller
from local.sigv4 import WireRequest

# API Gateway keeps these to itself. A signature is of no use to the function, and nobody else should see it.
_NOT_PASSED_ON = frozenset(
    {"authorization", "connection", "content-length", "expect", "keep-alive", "transfer-encoding", "x-forwarded-for"}
)
# It answers these itself; a function's own value arrives under another name.
_REMAPPED = frozenset({"connection", "content-length", "date", "server", "transfer-encoding", "www-authenticate"})

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


class MalformedAnswer(Exception):
    """The function's answer is not what a proxy integration may answer."""


@dataclass(frozen=True)
class RouteMatch:
    """A route's path as the template writes it, and the values of its ``{parameters}``, decoded."""

    resource: str
    parameters: dict[str, str]


@dataclass(frozen=True)
class ApiLabels:
    """What an event says about the API it came through."""

    account_id: str
    region: str
    stage: str
    api_id: str = "local00api"


@dataclass(frozen=True)
class Arrival:
    """When and from where a request came, and the id it got."""

    request_id: str
    received_at: datetime
    source_ip: str


@dataclass(frozen=True)
class ProxyAnswer:
    """The HTTP answer that a function asked for."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def match_path(resource: str, path: str) -> RouteMatch | None:
    """Match a percent-encoded path with a route such as ``/v1/credentials/{name}``, or answer None.

    Segments are told apart before they are decoded, so an encoded slash stays inside its parameter.
    """
    wanted, given = resource.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    parameters = {}
    for pattern, segment in zip(wanted, given, strict=True):
        if pattern.startswith("{") and segment:
            parameters[pattern[1:-1]] = unquote(segment)
        elif pattern != segment:
            return None
    return RouteMatch(resource, parameters)


def proxy_event(
    request: WireRequest, match: RouteMatch, caller: LocalCaller, arrival: Arrival, labels: ApiLabels
) -> dict[str, Any]:
    """Answer the event that API Gateway would invoke the function with."""
    headers = _grouped((name, value) for name, value in request.headers if name.lower() not in _NOT_PASSED_ON)
    headers["X-Forwarded-For"] = [", ".join([*request.values("x-forwarded-for"), arrival.source_ip])]
    query = _grouped(parse_qsl(request.query, keep_blank_values=True), fold_case=False)
    return {
        "resource": match.resource,
        "path": unquote(request.path),
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": match.parameters or None,
        "stageVariables": None,
        "requestContext": {
            "accountId": labels.account_id,
            "apiId": labels.api_id,
            "deploymentId": "local",
            "domainName": f"{labels.api_id}.execute-api.{labels.region}.amazonaws.com",
            "domainPrefix": labels.api_id,
            "extendedRequestId": arrival.request_id,
            "httpMethod": request.method,
            "identity": _identity(request, caller, arrival.source_ip),
            # As behind a custom domain mapped to the stage: the path carries no stage.
            "path": unquote(request.path),
            "protocol": "HTTP/1.1",
            "requestId": arrival.request_id,
            "requestTime": arrival.received_at.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": int(arrival.received_at.timestamp() * 1000),
            "resourceId": "local",
            "resourcePath": match.resource,
            "stage": labels.stage,
        },
        # No binary media types are configured, so a body is text whatever it holds.
        "body": request.body.decode("utf-8", "replace") or None,
        "isBase64Encoded": False,
    }


def _identity(request: WireRequest, caller: LocalCaller, source_ip: str) -> dict[str, str | None]:
    # vpceId and vpcId are absent, as they are unless a request came through a VPC endpoint.
    return {
        "accessKey": caller.access_key_id,
        "accountId": caller.account_id,
        "caller": caller.principal_id,
        "cognitoAuthenticationProvider": None,
        "cognitoAuthenticationType": None,
        "cognitoIdentityId": None,
        "cognitoIdentityPoolId": None,
        "principalOrgId": None,
        "sourceIp": source_ip,
        "user": caller.principal_id,
        "userAgent": next(iter(request.values("user-agent")), None),
        "userArn": caller.user_arn,
    }


def read_answer(payload: bytes) -> ProxyAnswer:
    """Read a function's answer; raises MalformedAnswer."""
    try:
        answer = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer("not JSON") from error
    if not isinstance(answer, dict):
        raise MalformedAnswer("not an object")
    return ProxyAnswer(_read_status(answer), tuple(_read_headers(answer)), _read_body(answer))


def _read_status(answer: dict[str, Any]) -> int:
    status = answer.get("statusCode")
    if isinstance(status, str) and re.fullmatch("[0-9]{3}", status):
        status = int(status)
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise MalformedAnswer("statusCode")
    return status


def _read_body(answer: dict[str, Any]) -> bytes:
    body = answer.get("body")
    if not isinstance(body, str | None):
        raise MalformedAnswer("body")
    if not answer.get("isBase64Encoded"):
        return (body or "").encode("utf-8", "replace")
    try:
        return base64.b64decode(body or "", validate=True)
    except binascii.Error as error:
        raise MalformedAnswer("body is not base64") from error


def _read_headers(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    single, multiple = (
        {} if answer.get(field) is None else answer[field] for field in ("headers", "multiValueHeaders")
    )
    if not isinstance(single, dict) or not isinstance(multiple, dict):
        raise MalformedAnswer("headers")
    # Where both name a header, the list wins.
    for name, values in ({name: [value] for name, value in single.items()} | multiple).items():
        if not isinstance(values, list) or _HEADER_NAME.fullmatch(name) is None:
            raise MalformedAnswer("headers")
        shown = f"x-amzn-Remapped-{name}" if name.lower() in _REMAPPED else name
        for value in values:
            yield shown, _header_text(value)


def _header_text(value: object) -> str:
    text = json.dumps(value) if isinstance(value, bool | int | float) else value
    # A line break would let the function, or whoever supplied the text, write headers and bodies of its own.
    if not isinstance(text, str) or _HEADER_VALUE.fullmatch(text) is None:
        raise MalformedAnswer("headers")
    return text.encode("utf-8", "replace").decode()


def _grouped(
    pairs: Iterator[tuple[str, str]] | list[tuple[str, str]], *, fold_case: bool = True
) -> dict[str, list[str]]:
    """Group the values of the same name under the spelling that came first."""
    spelling: dict[str, str] = {}
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        first = spelling.setdefault(name.lower() if fold_case else name, name)
        grouped.setdefault(first, []).append(value)
    return grouped
