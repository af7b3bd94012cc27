"""The client: a fresh token for each request, and no key in your service.

    import requests
    from imburse_auth.client import VendedAuth

    session = requests.Session()
    session.auth = VendedAuth("sandbox/tenant-a")

Importing it costs no AWS SDK and no HTTP library; each is imported when it is first needed. `HttpxVendedAuth` is in
`imburse_auth.client.httpx_auth`, the test double in `imburse_auth.client.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imburse_auth.client.api_source import ApiSource
from imburse_auth.client.failed import VendingFailed
from imburse_auth.client.invoke_source import InvokeSource
from imburse_auth.client.key_source import KeySource
from imburse_auth.client.sources import Source, source_from_env
from imburse_auth.client.supply import Misdirected
from imburse_auth.client.vended import Vended

if TYPE_CHECKING:
    from imburse_auth.client.auth import VendedAuth, VendedSession

__all__ = [
    "ApiSource",
    "InvokeSource",
    "KeySource",
    "Misdirected",
    "Source",
    "Vended",
    "VendedAuth",
    "VendedSession",
    "VendingFailed",
    "source_from_env",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - two classes
    if name in ("VendedAuth", "VendedSession"):
        from imburse_auth.client import auth

        return getattr(auth, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
