"""Where tokens come from: a source vends them, by whichever door the caller has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from imburse_auth.client.api_source import ApiSource
from imburse_auth.client.invoke_source import InvokeSource
from imburse_auth.client.vended import Vended

if TYPE_CHECKING:
    import boto3


stand_in: Source | None = None
"""Takes the place of every source in this process: for tests alone (imburse_auth.client.testing sets it)."""


class Source(Protocol):
    """Whatever vends tokens. One object serves all threads."""

    def tokens(self, credential: str, count: int = 1, *, minimum_lifetime_seconds: int = 300) -> list[Vended]:
        """At least one token and at most `count` (1 to 500), each the caller's alone and with so much of its life left.

        Raises VendingFailed if none came. A repeated call vends other tokens.
        """
        ...


def source_from_env(environ: Mapping[str, str], *, session: boto3.Session | None = None) -> ApiSource | InvokeSource:
    """The source that the environment names, without a call to anybody.

    `VENDING_API`, the base URL of the API, or else `VENDING_FUNCTION`, the vend function with the caller's alias
    (`imburse-vending-vend:settlement-job`, or its ARN). Raises ValueError, which names both.
    """
    if url := environ.get("VENDING_API"):
        return ApiSource(url, session=session)
    if function := environ.get("VENDING_FUNCTION"):
        if session is None:
            return InvokeSource(function)
        return InvokeSource(function, session=session)
    raise ValueError(
        "VENDING_API or VENDING_FUNCTION must be set: the vending machine's URL, or its vend function and your alias"
    )
