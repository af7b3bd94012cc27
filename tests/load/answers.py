"""Reading what a caller was answered, to the letter: what it is, and what of it is not as the README says."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.load.plan import Kind
from tests.load.visit import Visit, fingerprint

URN = "urn:imburse-vending:error:"
LEAST_SECONDS = 300  # what a token has left if a caller says nothing
LIFE_SECONDS = 1800
_SINGLE = {
    "accessToken",
    "expires",
    "expiresAt",
    "expiresIn",
    "tokenType",
    "credential",
    "baseUrl",
    "headers",
}


@dataclass(frozen=True)
class Expected:
    """Whose token it must be: the ids of the credential, the public keys that it has or will have, and Imburse's base URL."""

    account_id: str
    tenant_id: str
    public_keys: tuple[str, ...]
    base_url: str


@dataclass(frozen=True)
class Reply:
    """What came back by either door: `error` is X-Amz-Function-Error at the direct one."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    error: str | None = None


def read(
    visit: Visit, kind: Kind, asked: int, reply: Reply, expected: Expected, *, slack: float
) -> list[dict[str, Any]]:
    """Write into `visit` what came. Answers the tokens' `headers`, each to be used once.

    `slack` is how many seconds late this machine may look at the clock.
    """
    visit.request_id = reply.headers.get("x-amzn-RequestId")
    visit.status = reply.status
    try:
        document = json.loads(reply.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        visit.code, visit.wrong = f"{kind.door}:{reply.status}", ["not a JSON object"]
        return []
    if reply.status != 200 or reply.error is not None:
        _read_refusal(visit, kind, reply, document)
        return []
    if kind.door == "api" and reply.headers.get("Cache-Control") != "no-store":
        visit.wrong.append("may be cached")
    if kind.refused:
        visit.wrong.append("a stranger was served")
    if kind.action == "inspect":
        _check_identity(visit, document, expected)
        return []
    if asked == 1:
        return _tokens(visit, [document], expected, slack)
    if document.keys() != {"tokens", "requested", "failures"} or not isinstance(document["tokens"], list):
        visit.wrong.append("not the shape of a batch")
        return []
    visit.failures = {one["type"].removeprefix(URN): one["count"] for one in document["failures"]}
    if document["requested"] != asked or len(document["tokens"]) + sum(visit.failures.values()) != asked:
        visit.wrong.append("a batch that does not add up")
    return _tokens(visit, document["tokens"], expected, slack)


def _read_refusal(visit: Visit, kind: Kind, reply: Reply, document: dict[str, Any]) -> None:
    if kind.door == "invoke":
        visit.error_type = str(document.get("errorType"))
        try:
            document = json.loads(document["errorMessage"])
        except (ValueError, KeyError, TypeError):
            visit.code = f"invoke:{visit.error_type}"  # Lambda's own words
            return
        visit.retry_after = document.get("retryAfter")
    elif reply.headers.get("Content-Type") != "application/problem+json":
        visit.code = f"api:{reply.status}"  # API Gateway's own words
        return
    else:
        visit.retry_after = int(reply.headers["Retry-After"]) if "Retry-After" in reply.headers else None
        if document.get("status") != reply.status:
            visit.wrong.append("two statuses")
    visit.status, visit.code = document.get("status"), str(document.get("type", "")).removeprefix(URN)
    if document.get("requestId") != visit.request_id:
        visit.wrong.append("another's request id")


def _tokens(visit: Visit, singles: list[Any], expected: Expected, slack: float) -> list[dict[str, Any]]:
    headers = []
    for single in singles:
        wrong = wrong_with(single, visit, expected, slack)
        visit.wrong += wrong
        if isinstance(single, dict) and isinstance(single.get("accessToken"), str):
            visit.tokens.append(fingerprint(single["accessToken"]))
            headers.append(single.get("headers", {}))
    return headers


def wrong_with(single: Any, visit: Visit, expected: Expected, slack: float) -> list[str]:
    """What is not as documented about one token's answer; nothing that is said holds any of the token."""
    if not isinstance(single, dict) or single.keys() != _SINGLE:
        return ["not the shape of a token"]
    token, expires = single["accessToken"], single["expires"]
    left = expires - visit.ended
    claims = _claims(token)
    scope = {"x-account-id": expected.account_id, "x-tenant-id": expected.tenant_id}
    checks = {
        "another credential": single["credential"] == visit.credential,
        "another host": single["baseUrl"] == expected.base_url,
        "another type": single["tokenType"] == "Bearer",
        "wrong headers": single["headers"] == {"Authorization": f"Bearer {token}", **scope},
        "another key's token": claims.get("sub") in expected.public_keys,
        "another tenant's token": (claims.get("accountId"), claims.get("tenantId"))
        == (expected.account_id, expected.tenant_id),
        "another expiry than the token's": claims.get("exp") == expires,
        "does not live long enough": LEAST_SECONDS - slack <= left <= LIFE_SECONDS + 1,
        "expiresIn does not fit": left - 1 <= single["expiresIn"] <= left + slack + 1,
        "expiresAt does not fit": datetime.fromisoformat(single["expiresAt"]).timestamp() == expires,
    }
    return [what for what, holds in checks.items() if not holds]


def _check_identity(visit: Visit, document: dict[str, Any], expected: Expected) -> None:
    tenants = [{"tenantId": expected.tenant_id, "accountId": expected.account_id}]
    wanted = {"credential": visit.credential, "accounts": [{"accountId": expected.account_id}], "tenants": tenants}
    if document != wanted:
        visit.wrong.append("not what the key reaches")


def _claims(token: str) -> dict[str, Any]:
    try:
        part = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError):
        return {}
    return claims
