"""`GET /v1/identity/me`: which accounts and tenants a token's identity reaches (protocol.md, section 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imburse_auth.errors import UpstreamProtocol
from imburse_auth.retry import Deadline
from imburse_auth.transport import Transport

IDENTITY_PATH = "/v1/identity/me"


@dataclass(frozen=True)
class Identity:
    """What Imburse lists: the accounts and the tenants, each a JSON value in the vendor's own shape."""

    accounts: list[Any]
    tenants: list[Any]

    @classmethod
    def from_answer(cls, payload: object) -> Identity:
        """Read the answer. Its shape is not printed in what we have, so tenants may also stand inside their accounts.

        Raises UpstreamProtocol if it names neither accounts nor tenants: "reaches nothing" must not be our guess.
        """
        if not isinstance(payload, dict):
            raise UpstreamProtocol("Imburse's answer on the identity is not a JSON object")
        accounts, tenants = payload.get("accounts"), payload.get("tenants")
        if not isinstance(accounts, list) and not isinstance(tenants, list):
            raise UpstreamProtocol("Imburse's answer on the identity names neither accounts nor tenants")
        accounts = accounts if isinstance(accounts, list) else []
        if not isinstance(tenants, list):
            nested = (account.get("tenants") for account in accounts if isinstance(account, dict))
            tenants = [tenant for some in nested if isinstance(some, list) for tenant in some]
        return cls(accounts, tenants)


def identity_me(
    transport: Transport,
    base_url: str,
    headers: Mapping[str, str],
    *,
    deadline: Deadline,
    correlation_id: str | None = None,
) -> Identity:
    """Ask once, which spends the token that `headers` (AccessToken.headers) carry.

    Raises UpstreamRejected with the upstream's status, error code and correlation id, and what Transport.send raises.
    """
    url = base_url + IDENTITY_PATH
    answer = transport.send("GET", url, headers, deadline=deadline, correlation_id=correlation_id)
    found = Identity.from_answer(answer.payload)
    token = headers["Authorization"].removeprefix("Bearer ")
    if token in json.dumps([found.accounts, found.tenants]):
        raise UpstreamProtocol("Imburse's answer on the identity repeats the token, which it must not")
    return found
