"""What a caller gets back: a token, a batch, an identity, or a problem document (RFC 9457), for either door."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from imburse_auth.credential import CredentialId
from imburse_auth.errors import VendingError
from imburse_auth.identity import Identity
from vending.errors import bare
from vending.supply.inline import Supplied

URN = "urn:imburse-vending:error:"


def single(credential: CredentialId, supplied: Supplied, *, now: float) -> dict[str, Any]:
    """The vendor's own `{"accessToken", "expires"}` and what a caller needs to use it without knowing the protocol."""
    token = supplied.token
    return {
        "accessToken": token.value,
        "expires": token.expires,
        "expiresAt": token.expires_at.isoformat().replace("+00:00", "Z"),
        "expiresIn": token.expires_in(now),
        "tokenType": "Bearer",
        "credential": str(credential),
        "baseUrl": supplied.base_url,
        "headers": token.headers(),
    }


def batch(tokens: list[dict[str, Any]], requested: int, failures: Iterable[VendingError]) -> dict[str, Any]:
    """Every token that came, and how many did not, by the type of problem."""
    by_type = Counter(URN + failure.code for failure in failures)
    return {
        "tokens": tokens,
        "requested": requested,
        "failures": [{"count": count, "type": kind} for kind, count in by_type.items()],
    }


def identity(credential: CredentialId, found: Identity) -> dict[str, Any]:
    """The accounts and tenants that the credential reaches."""
    return {"credential": str(credential), "accounts": found.accounts, "tenants": found.tenants}


def problem(error: VendingError, request_id: str) -> dict[str, Any]:
    """The problem document of an error; `upstream` is there when Imburse said something."""
    document: dict[str, Any] = {
        "type": URN + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "requestId": request_id,
    }
    if error.upstream is not None:
        document["upstream"] = error.upstream.as_dict()
    return document


def ok(body: dict[str, Any]) -> dict[str, Any]:
    """An API Gateway proxy response with a JSON body that nobody may keep."""
    return _response(200, "application/json", body)


def refused(error: VendingError, request_id: str) -> dict[str, Any]:
    """An API Gateway proxy response with a problem document, and Retry-After where trying again makes sense."""
    response = _response(error.status, "application/problem+json", problem(error, request_id))
    seconds = error.retry_after_seconds or error.default_retry_after_seconds
    if error.retryable and seconds is not None:
        response["headers"]["Retry-After"] = str(seconds)
    return response


def raised(error: VendingError, request_id: str) -> VendingError:
    """The error as a direct invoke raises it: errorType is its class, errorMessage the problem document as JSON.

    It comes without traceback: what Lambda makes of one would show the caller more of us than the handler's own line.
    """
    document = problem(error, request_id)
    seconds = error.retry_after_seconds or error.default_retry_after_seconds
    if error.retryable and seconds is not None:
        document["retryAfter"] = seconds
    error.args = (json.dumps(document),)
    error.reason = None  # the log has it
    return bare(error).with_traceback(None)


def _response(status: int, content_type: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": content_type, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body), "isBase64Encoded": False}
