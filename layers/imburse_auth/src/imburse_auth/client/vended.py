"""A vended token as a caller holds it: for one API call, to one host."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from imburse_auth.client.failed import unexpected
from imburse_auth.hosts import normalise_base_url

_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_VALUE = re.compile(r"[!-~]{1,16384}|Bearer [!-~]{1,16384}")


@dataclass(frozen=True)
class Vended:
    """One token, for one call to `base_url`, with the `headers` to send.

    `expires` is seconds since the epoch by Imburse's clock; `expires_in`, whole seconds left when the answer was made, holds
    on a machine whose own clock is wrong. Neither the token nor the headers are in its repr.
    """

    credential: str
    expires: int
    base_url: str
    headers: dict[str, str] = field(repr=False, compare=False)
    access_token: str = field(repr=False)
    expires_in: int | None = None

    @classmethod
    def from_answer(cls, answer: object) -> Vended:
        """Read the answer to a vend, or one of a batch. Raises VendingFailed (`unexpected_answer`) that names the field."""
        if not isinstance(answer, dict):
            raise unexpected("the answer is not a JSON object")
        credential, token = _text(answer, "credential"), _text(answer, "accessToken")
        headers = answer.get("headers")
        if not isinstance(headers, dict) or not all(
            isinstance(value, str) and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
            for name, value in headers.items()
        ):
            raise unexpected("headers: must be names and values that can be sent")
        if headers.get("Authorization") != f"Bearer {token}":
            raise unexpected("headers: Authorization must carry the accessToken")
        try:
            base_url = normalise_base_url(_text(answer, "baseUrl"))
        except ValueError:
            raise unexpected("baseUrl: must be an https URL") from None
        return cls(
            credential, _seconds(answer, "expires"), base_url, dict(headers), token, _seconds(answer, "expiresIn")
        )


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise unexpected(f"{name}: must be text")
    return value


def _seconds(answer: dict[str, Any], name: str) -> int:
    value = answer.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise unexpected(f"{name}: must be whole seconds")
    return value
