"""The API's OpenAPI 3.1 document, made from the code: routes from template.yaml, limits and errors from where they are kept.

`make openapi` writes it to openapi.json; a test compares the two, and others hold real answers against it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from imburse_auth import credential
from imburse_auth.errors import (
    CredentialMisconfigured,
    CredentialNotFound,
    SecretsUnavailable,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnavailable,
    VendingError,
)
from local.template import Route, read_application
from vending import operate, request
from vending.access.brake import Scope
from vending.answer import URN
from vending.errors import (
    AuditUnavailable,
    BrakeUnavailable,
    InternalError,
    InvalidRequest,
    NotAuthorized,
    OverBudget,
)

FILE = Path(__file__).parents[1] / "openapi.json"
ABOUT = (
    "Hands out Imburse access tokens, each once, to callers whom the policy allows. Every request is signed with SigV4 "
    "(service `execute-api`); the IAM role that signs is the caller. Each vend gives a new token, also when a request is "
    "repeated, and no token is given twice."
)

Schema = dict[str, Any]

_ANY_ROUTE = (InvalidRequest, NotAuthorized, InternalError, AuditUnavailable)
_SUPPLY = (
    CredentialNotFound,
    OverBudget,
    CredentialMisconfigured,
    UpstreamRejected,
    UpstreamProtocol,
    UpstreamThrottled,
    UpstreamUnavailable,
    SecretsUnavailable,
)
# What API Gateway answers by itself, before a function is asked: 403 to a signature that is missing or wrong, and so on.
_GATEWAY = {
    403: "API Gateway: the signature is missing or wrong, or IAM does not let the caller in",
    413: "API Gateway: the request is too large",
    429: "API Gateway: too many requests in this account",
    502: "API Gateway: the function failed",
    504: "API Gateway: no answer within 29 s",
}


# vending/access/caller.py's rule in the dialect of JSON Schema; a test holds the two together.
_CALLER = (
    "^(alias/(?![0-9]+$)[A-Za-z0-9_-]{1,128}|arn:aws[a-z-]*:(iam|sts)::[0-9]{12}:"
    "(root|(role|user|federated-user)/[A-Za-z0-9_+=,.@/-]+|assumed-role/[A-Za-z0-9_+=,.@-]+/[A-Za-z0-9_+=,.@-]+))$"
)


@dataclass(frozen=True)
class _Operation:
    """What the code does not say of a route in words."""

    name: str
    summary: str
    description: str
    answer: str
    errors: tuple[type[VendingError], ...]
    body: str | None = None
    body_required: bool = False


_OPERATIONS = {
    ("POST", "/v1/credentials/{environment}/{name}/token"): _Operation(
        "vendToken",
        "Vend one token",
        "Send `headers` with one API call to `baseUrl`: the token is spent by it.",
        "Token",
        (*_ANY_ROUTE, *_SUPPLY),
        "TokenRequest",
    ),
    ("POST", "/v1/credentials/{environment}/{name}/tokens"): _Operation(
        "vendTokens",
        "Vend a batch of tokens",
        "What came is yours, and what did not is counted in `failures`. An error only if none came.",
        "Batch",
        (*_ANY_ROUTE, *_SUPPLY),
        "BatchRequest",
        body_required=True,
    ),
    ("GET", "/v1/credentials/{environment}/{name}/identity"): _Operation(
        "inspectCredential",
        "See what a credential reaches",
        "The accounts and tenants as Imburse lists them, and no token. Needs the action `inspect`.",
        "Identity",
        (*_ANY_ROUTE, *_SUPPLY),
    ),
    ("POST", "/v1/brake"): _Operation(
        "operateBrake",
        "Freeze or thaw",
        f"A credential, a caller or everything, within {operate.EFFECTIVE_SECONDS} seconds. Needs the action `operate`.",
        "Obeyed",
        (*_ANY_ROUTE, BrakeUnavailable),
        "Order",
        body_required=True,
    ),
}


def document(routes: Iterable[Route]) -> Schema:
    """The document of these routes. Raises ValueError for one that nothing is said about here."""
    paths: dict[str, Schema] = {}
    told = list(_OPERATIONS)
    for method, path in sorted(((route.method, route.path) for route in routes), key=told.index):
        paths.setdefault(path, {})[method.lower()] = _operation(path, _OPERATIONS[method, path])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Imburse token vending machine", "version": "1.0.0", "description": ABOUT},
        "servers": [
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com/api",
                "description": "The output ApiUrl of a deployed stack",
                "variables": {"api": {"default": "api-id"}, "region": {"default": "eu-west-1"}},
            }
        ],
        "security": [{"sigv4": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "sigv4": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4, service `execute-api`",
                    "x-amazon-apigateway-authtype": "awsSigv4",
                }
            },
        },
    }


def template_routes() -> tuple[Route, ...]:
    """The routes of template.yaml."""
    application = read_application(
        FILE.with_name("template.yaml"), {}, stack_name="imburse-vending", region="eu-west-1", account_id="123456789012"
    )
    return tuple(application.routes)


def text(routes: Iterable[Route]) -> str:
    """The document as it is kept in openapi.json."""
    return json.dumps(document(routes), indent=2) + "\n"


def _operation(path: str, operation: _Operation) -> Schema:
    parameters = [_path_parameter(name) for name in ("environment", "name") if f"{{{name}}}" in path]
    correlation = (
        "Goes on to Imburse and into the audit record; ignored unless it is 1 to 128 of `A-Z a-z 0-9 : . _ -`."
    )
    parameters.append(
        {"name": "X-Correlation-ID", "in": "header", "description": correlation, "schema": {"type": "string"}}
    )
    members: Schema = {
        "operationId": operation.name,
        "tags": ["Tokens" if "/credentials/" in path else "Operation"],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": parameters,
    }
    if operation.body is not None:
        members["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": _ref(operation.body)}},
        }
    return members | {"responses": _responses(operation)}


def _path_parameter(name: str) -> Schema:
    example = {"environment": "sandbox", "name": "tenant-a"}[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "Part of the credential's id, `<environment>/<name>`.",
        "schema": {"type": "string", "pattern": f"^{credential.PART_PATTERN}$", "not": {"pattern": r"\.\."}},
        "example": example,
    }


def _responses(operation: _Operation) -> Schema:
    responses: Schema = {
        "200": {
            "description": operation.summary,
            "headers": {"Cache-Control": {"schema": {"const": "no-store"}}},
            "content": {"application/json": {"schema": _ref(operation.answer)}},
        }
    }
    kinds: dict[int, list[type[VendingError]]] = {}
    for kind in operation.errors:
        kinds.setdefault(kind.status, []).append(kind)
    for status in sorted({*kinds, *_GATEWAY}):
        responses[str(status)] = _refusal(kinds.get(status, []), _GATEWAY.get(status))
    return responses


def _refusal(kinds: list[type[VendingError]], gateway: str | None) -> Schema:
    told = [f"`{kind.code}`: {kind.title}" for kind in kinds] + ([gateway] if gateway else [])
    content: Schema = {}
    if kinds:
        types = [URN + kind.code for kind in kinds]
        content["application/problem+json"] = {
            "schema": {"allOf": [_ref("Problem"), {"properties": {"type": {"enum": types}}}]},
            "examples": {kind.code: {"value": _example(kind)} for kind in kinds},
        }
    if gateway:
        content["application/json"] = {"schema": _ref("GatewayRefusal")}
    refusal: Schema = {"description": "; ".join(told), "content": content}
    if any(kind.retryable for kind in kinds):
        refusal["headers"] = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 0}}}
    return refusal


def _example(kind: type[VendingError]) -> Schema:
    return {
        "type": URN + kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": "what is wrong, without any value of yours",
        "requestId": "c6af9ac6-0000-4000-8000-000000000002",
    }


def _schemas() -> Mapping[str, Schema]:
    whole = {"type": "integer"}
    line = {"type": "string"}
    least = {
        "type": "integer",
        "minimum": 0,
        "maximum": request.MAX_LEAST_SECONDS,
        "default": request.DEFAULT_LEAST_SECONDS,
        "description": "How long each token must still live, in seconds",
    }
    count = {"type": "integer", "minimum": 1, "maximum": request.MAX_COUNT}
    problem_type = {"type": "string", "pattern": f"^{URN}[a-z_]+$"}
    listed = {"type": "array", "items": {}, "description": "In the vendor's own shape"}
    scope = {"enum": list(get_args(Scope))}
    return {
        "TokenRequest": _closed({"minimumLifetimeSeconds": least}),
        "BatchRequest": _closed({"count": count, "minimumLifetimeSeconds": least}, "count"),
        "Order": {
            "oneOf": [
                _order("credential", f"^{credential.PART_PATTERN}/{credential.PART_PATTERN}$", "A credential's id"),
                _order("caller", _CALLER, "An IAM principal's ARN, or `alias/<name>`, as the policy names a caller"),
                _order("everything"),
            ]
        },
        "Token": _closed(
            {
                "accessToken": line | {"description": "Good for one use"},
                "expires": whole | {"description": "Seconds since the epoch"},
                "expiresAt": line | {"format": "date-time"},
                "expiresIn": whole | {"minimum": 0, "description": "Seconds left"},
                "tokenType": {"const": "Bearer"},
                "credential": line | {"examples": ["sandbox/tenant-a"]},
                "baseUrl": line | {"format": "uri", "description": "Where the token may be used"},
                "headers": _closed(
                    {"Authorization": line, "x-account-id": line, "x-tenant-id": line}, "Authorization", "x-account-id"
                ),
            },
            *("accessToken", "expires", "expiresAt", "expiresIn", "tokenType", "credential", "baseUrl", "headers"),
        ),
        "Batch": _closed(
            {
                "tokens": {"type": "array", "items": _ref("Token"), "maxItems": request.MAX_COUNT},
                "requested": count,
                "failures": {
                    "type": "array",
                    "items": _closed({"count": whole, "type": problem_type}, "count", "type"),
                },
            },
            *("tokens", "requested", "failures"),
        ),
        "Identity": _closed(
            {"credential": line, "accounts": listed, "tenants": listed}, "credential", "accounts", "tenants"
        ),
        "Obeyed": _closed(
            {
                "operate": {"enum": list(get_args(operate.Operation))},
                "scope": scope,
                "target": line,
                "effectiveWithinSeconds": whole,
                "purged": whole | {"description": "Tokens that were thrown away"},
            },
            *("operate", "scope", "effectiveWithinSeconds"),
        ),
        "Problem": _closed(
            {
                "type": problem_type,
                "title": line,
                "status": whole,
                "detail": line,
                "requestId": line | {"description": "Finds it in the log and the audit record"},
                "upstream": _closed({"status": whole, "errorCode": line, "correlationId": line}, "status"),
            },
            *("type", "title", "status", "detail", "requestId"),
        ),
        "GatewayRefusal": {
            "type": "object",
            "properties": {"message": {"type": ["string", "null"]}},
            "required": ["message"],
        },
    }


def _order(scope: str, target: str | None = None, description: str = "") -> Schema:
    properties: Schema = {
        "operate": {"enum": list(get_args(operate.Operation))},
        "scope": {"const": scope},
        "why": {
            "type": "string",
            "minLength": 1,
            "maxLength": operate.MAX_WHY_CHARACTERS,
            "pattern": r"\S",
            "description": "For the record: printable characters, no key and no token",
        },
    }
    if target is None:
        return _closed(properties, *properties)
    longest = {"type": "string", "maxLength": operate.MAX_TARGET_CHARACTERS, "not": {"pattern": r"\.\."}}
    properties["target"] = longest | {"pattern": target, "description": description}
    return _closed(properties, *properties)


def _closed(properties: Mapping[str, Schema], *required: str) -> Schema:
    schema: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return schema | {"required": list(required)} if required else schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def main() -> None:
    """Writes openapi.json."""
    FILE.write_text(text(template_routes()), encoding="utf-8")
    print(f"wrote {FILE.name}")


if __name__ == "__main__":
    main()
