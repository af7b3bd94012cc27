"""The errors of the system: one root, one class a row of the README's error table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CORRELATION_ID = re.compile(r"[A-Za-z0-9:._-]{1,128}")


def plain_correlation_id(value: object) -> str | None:
    """The value if it is an id that may be logged and sent on as a header, else None."""
    return value if isinstance(value, str) and _CORRELATION_ID.fullmatch(value) else None


@dataclass(frozen=True)
class UpstreamAnswer:
    """What Imburse said when it refused: enough for a support case (protocol.md, section 5).

    `error_code` and `correlation_id` are None unless they look like ids: an upstream must not be able to write into our
    logs and answers.
    """

    status: int
    error_code: str | None = None
    correlation_id: str | None = None

    @classmethod
    def of(cls, status: int, payload: object, correlation_id: object = None) -> UpstreamAnswer:
        """Read an error body; whatever does not have the documented shape is left out."""
        error_code = None
        if isinstance(payload, dict):
            correlation_id = payload.get("correlationId") or correlation_id
            errors = payload.get("errors")
            first = errors[0] if isinstance(errors, list) and errors else None
            if isinstance(first, dict):
                error_code = first.get("errorCode")
            elif isinstance(payload.get("Error"), dict):  # as AWS says it: STS, for the caller's proof
                error_code = payload["Error"].get("Code")
        if not (isinstance(error_code, str) and _ERROR_CODE.fullmatch(error_code)):
            error_code = None
        return cls(status, error_code, plain_correlation_id(correlation_id))

    def as_dict(self) -> dict[str, Any]:
        """The `upstream` member of a problem document; absent values are left out."""
        members = {"status": self.status, "errorCode": self.error_code, "correlationId": self.correlation_id}
        return {name: value for name, value in members.items() if value is not None}


class VendingError(Exception):
    """Root of every error that a caller can see.

    `detail` is told to the caller, so it names fields and rules and never a value; `reason` goes to the log only.
    `retry_after_seconds` is what the upstream asked for, None if it did not; callers are then told the class's default.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something is wrong on our side"
    retryable: ClassVar[bool] = False
    default_retry_after_seconds: ClassVar[int | None] = None

    def __init__(
        self,
        detail: str,
        *,
        reason: str | None = None,
        upstream: UpstreamAnswer | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.upstream = upstream
        self.retry_after_seconds = retry_after_seconds


class CredentialNotFound(VendingError):
    """Allowed, but there is no such secret."""

    code, status, title = "credential_not_found", 404, "There is no such credential"


class CredentialMisconfigured(VendingError, ValueError):
    """The secret is not a usable API key, or points at a host that is not allowed."""

    code, status, title = "credential_misconfigured", 500, "The credential is not set up correctly"


class SecretsUnavailable(VendingError):
    """Secrets Manager or KMS fails, and no value that may still be served is in memory."""

    code, status, title, retryable = "secrets_unavailable", 503, "The key store does not answer", True
    default_retry_after_seconds = 5


class UpstreamRejected(VendingError):
    """Imburse refuses the key, or refuses what was asked with it."""

    code, status, title = "upstream_rejected", 502, "Imburse refused the credential"


class UpstreamProtocol(VendingError):
    """Imburse answered with something that cannot be used."""

    code, status, title = "upstream_protocol", 502, "Imburse gave an answer that cannot be used"


class UpstreamThrottled(VendingError):
    """Imburse says 429, also after the retries."""

    code, status, title, retryable = "upstream_throttled", 503, "Imburse is limiting our requests", True
    default_retry_after_seconds = 5


class UpstreamUnavailable(VendingError):
    """No answer, or a 5xx, from Imburse, also after the retries."""

    code, status, title, retryable = "upstream_unavailable", 503, "Imburse does not answer", True
    default_retry_after_seconds = 5
