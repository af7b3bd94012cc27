"""What a caller asks for, read strictly from either door: nothing is guessed, and nothing unknown is let through."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from imburse_auth.credential import CredentialId
from imburse_auth.errors import plain_correlation_id
from vending.errors import InvalidRequest

Action = Literal["vend", "inspect"]

MAX_COUNT = 500
MAX_BODY_CHARACTERS = 1024  # a count fits many times; nothing larger is worth parsing


@dataclass(frozen=True)
class Request:
    """One thing asked of one credential. `count` is how many tokens, 1 to 500; a batch is answered as a list, even of one."""

    action: Action
    credential: CredentialId
    count: int = 1
    batch: bool = False


def from_invoke(event: object) -> Request:
    """Read a direct invoke, `{"credential": "sandbox/tenant-a", "count": 1, "correlationId"?: "..."}`.

    A count of one is answered with the token itself, more with a batch. Raises InvalidRequest, which names the field.
    """
    members = _members(event, "event", {"credential", "count", "correlationId"})
    if "correlationId" in members and plain_correlation_id(members["correlationId"]) is None:
        raise InvalidRequest("correlationId: must be 1 to 128 letters, digits, ':', '.', '_' or '-'")
    credential = _credential(CredentialId.parse, members.get("credential"))
    count = _count(members.get("count", 1))
    return Request("vend", credential, count, batch=count > 1)


def from_api(event: Mapping[str, Any]) -> Request:
    """Read an API Gateway REST proxy event of one of the three routes. Raises InvalidRequest, which names the field."""
    parameters = event.get("pathParameters") or {}
    credential = _credential(CredentialId, parameters.get("environment"), parameters.get("name"))
    if event.get("queryStringParameters") or event.get("multiValueQueryStringParameters"):
        raise InvalidRequest("query: this API takes no query parameters")
    match event.get("resource"):
        case "/v1/credentials/{environment}/{name}/token":
            _members(_body(event), "body", set())
            return Request("vend", credential)
        case "/v1/credentials/{environment}/{name}/tokens":
            members = _members(_body(event), "body", {"count"})
            if "count" not in members:
                raise InvalidRequest("count: is missing")
            return Request("vend", credential, _count(members["count"]), batch=True)
        case "/v1/credentials/{environment}/{name}/identity":
            _members(_body(event), "body", set())
            return Request("inspect", credential)
        case _:
            raise InvalidRequest("path: no such route")


def ids_from_api(event: Mapping[str, Any]) -> tuple[str | None, object]:
    """API Gateway's request id, and what the caller sent as X-Correlation-ID, whatever it is; None for what is not there."""
    context, headers = event.get("requestContext"), event.get("headers")
    request_id = context.get("requestId") if isinstance(context, dict) else None
    named = headers.items() if isinstance(headers, dict) else ()
    correlation_id = next((value for name, value in named if name.lower() == "x-correlation-id"), None)
    return plain_correlation_id(request_id), correlation_id


def _credential(make: Callable[..., CredentialId], *parts: object) -> CredentialId:
    try:
        return make(*parts)
    except ValueError as exc:
        raise InvalidRequest(str(exc)) from None


def _body(event: Mapping[str, Any]) -> object:
    body = event.get("body")
    if body is None or body == "":
        return {}
    if not isinstance(body, str) or len(body) > MAX_BODY_CHARACTERS:
        raise InvalidRequest(f"body: must be at most {MAX_BODY_CHARACTERS} characters")
    try:
        text = base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body
        return json.loads(text, object_pairs_hook=_without_repeats)
    except InvalidRequest:
        raise
    except (ValueError, RecursionError):
        raise InvalidRequest("body: must be JSON") from None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidRequest("body: a field stands in it twice")
    return members


def _members(value: object, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}: must be a JSON object")
    if value.keys() - known:
        # The name is the caller's own text, so it is not repeated.
        allowed = ", ".join(sorted(known)) or "none"
        raise InvalidRequest(f"{where}: has an unknown field; known here: {allowed}")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
        raise InvalidRequest(f"count: must be a whole number from 1 to {MAX_COUNT}")
    return value
