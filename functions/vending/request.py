"""What a caller asks for, read strictly from either door: nothing is guessed, and nothing unknown is let through."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

from imburse_auth.credential import CredentialId
from imburse_auth.errors import plain_correlation_id
from vending import operate
from vending.errors import InvalidRequest
from vending.operate import Order

Action = Literal["vend", "inspect"]

MAX_COUNT = 500
DEFAULT_LEAST_SECONDS = 300
MAX_LEAST_SECONDS = 1500  # a token lives 1800 when it is new; what must live longer could never come from a pool
MAX_BODY_CHARACTERS = 1024  # a count fits many times; nothing larger is worth parsing

_BESIDE = {"correlationId", "proof"}  # what may stand beside a request in the event of a direct invoke


@dataclass(frozen=True)
class Request:
    """One thing asked of one credential.

    `count` is how many tokens, 1 to 500; a batch is answered as a list, even of one. Each is to have at least
    `least_seconds` of its life left, 0 to 1500.
    """

    action: Action
    credential: CredentialId
    count: int = 1
    batch: bool = False
    least_seconds: int = DEFAULT_LEAST_SECONDS


def from_invoke(event: object) -> Request | Order:
    """Read a direct invoke.

    `{"credential": "sandbox/tenant-a", "count"?: 1, "minimumLifetimeSeconds"?: 300, "correlationId"?: "...", "proof"?: {...}}`:
    a count of one is answered with the token itself, more with a batch. Or an order, `{"operate", "scope", "target"?, "why",
    "correlationId"?, "proof"?}`. Raises InvalidRequest, which names the field. The proof says who asks, not what:
    `vending.access.proof` reads it.
    """
    if isinstance(event, dict) and "operate" in event:
        members = _members(event, "event", operate.FIELDS | _BESIDE)
        _check_correlation_id(members)
        return Order.read(members)
    members = _members(event, "event", {"credential", "count", "minimumLifetimeSeconds"} | _BESIDE)
    _check_correlation_id(members)
    credential = _credential(CredentialId.parse, members.get("credential"))
    count = _count(members.get("count", 1))
    return Request("vend", credential, count, batch=count > 1, least_seconds=_least_seconds(members))


def from_api(event: Mapping[str, Any]) -> Request | Order:
    """Read an API Gateway REST proxy event of one of the four routes. Raises InvalidRequest, which names the field."""
    if event.get("queryStringParameters") or event.get("multiValueQueryStringParameters"):
        raise InvalidRequest("query: this API takes no query parameters")
    if event.get("resource") == "/v1/brake":
        return Order.read(_members(_body(event, operate.MAX_BODY_CHARACTERS), "body", operate.FIELDS))
    parameters = event.get("pathParameters") or {}
    credential = _credential(CredentialId, parameters.get("environment"), parameters.get("name"))
    match event.get("resource"):
        case "/v1/credentials/{environment}/{name}/token":
            members = _members(_body(event), "body", {"minimumLifetimeSeconds"})
            return Request("vend", credential, least_seconds=_least_seconds(members))
        case "/v1/credentials/{environment}/{name}/tokens":
            members = _members(_body(event), "body", {"count", "minimumLifetimeSeconds"})
            if "count" not in members:
                raise InvalidRequest("count: is missing")
            count = _count(members["count"])
            return Request("vend", credential, count, batch=True, least_seconds=_least_seconds(members))
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


def _check_correlation_id(members: Mapping[str, Any]) -> None:
    if "correlationId" in members and plain_correlation_id(members["correlationId"]) is None:
        raise InvalidRequest("correlationId: must be 1 to 128 letters, digits, ':', '.', '_' or '-'")


def _body(event: Mapping[str, Any], most_characters: int = MAX_BODY_CHARACTERS) -> object:
    body = event.get("body")
    if body is None or body == "":
        return {}
    if not isinstance(body, str) or len(body) > most_characters:
        raise InvalidRequest(f"body: must be at most {most_characters} characters")
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


def _members(value: object, where: str, known: AbstractSet[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where}: must be a JSON object")
    if value.keys() - known:
        # The name is the caller's own text, so it is not repeated.
        allowed = ", ".join(sorted(known)) or "none"
        raise InvalidRequest(f"{where}: has an unknown field; known here: {allowed}")
    return value


def _count(value: object) -> int:
    return _whole("count", value, 1, MAX_COUNT)


def _least_seconds(members: Mapping[str, Any]) -> int:
    value = members.get("minimumLifetimeSeconds", DEFAULT_LEAST_SECONDS)
    return _whole("minimumLifetimeSeconds", value, 0, MAX_LEAST_SECONDS)


def _whole(field: str, value: object, least: int, most: int) -> int:
    # 3.0 is a whole number in JSON, and some clients write it so.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequest(f"{field}: must be a whole number from {least} to {most}")
    return value
