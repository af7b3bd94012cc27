"""Refusals of the Imburse emulator: one exception, and the vendor's error body made from it (protocol.md section 5)."""

from __future__ import annotations

from typing import Any


class InvalidDocument(ValueError):
    """A document sent to the control side is not what it should be. The message names the field, never a value."""


class Refusal(Exception):
    """A request that the emulator turns away.

    ``status`` is the HTTP status, ``code`` the vendor-style errorCode, ``template`` the text whose ``{names}`` are
    filled from ``metadata``. Never put a private key, a nonce or a token into ``metadata``: it goes out in the body.
    """

    def __init__(self, status: int, code: str, template: str, **metadata: str | int) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.template = template
        self.metadata = metadata

    def body(self, *, timestamp: int, correlation_id: str) -> dict[str, Any]:
        """Answer the error document of protocol.md section 5; ``timestamp`` is in whole seconds since the epoch."""
        error = {
            "errorCode": self.code,
            "message": self.template.format(**self.metadata),
            "messageTemplate": self.template,
            "metadata": self.metadata,
        }
        return {"timestamp": timestamp, "correlationId": correlation_id, "errors": [error]}
