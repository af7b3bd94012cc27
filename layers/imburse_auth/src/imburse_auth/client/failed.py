"""The one error of the client: why there is no token, in the words of the vending machine's error table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from imburse_auth.errors import VendingError, plain_correlation_id

_TYPE = re.compile(r"urn:imburse-vending:error:([a-z_]{1,64})")
_LONGEST_DETAIL = 500

UNEXPECTED_ANSWER = "unexpected_answer"


class VendingFailed(Exception):
    """No token was vended.

    `code` is a row of the error table (`not_authorized`, `over_budget`, ...), or what only a client can see: `unreachable`
    (no answer in time), `refused_by_aws` and `throttled_by_aws` (API Gateway, Lambda or IAM said no, before the function was
    asked), `failed_in_aws` (the function or AWS broke down), `no_aws_credentials` (no region, no credentials) and
    `unexpected_answer` (what answered is not the vending machine).
    `status` is the HTTP status, 0 where nothing answered. `retryable` says whether the same request may work later, without
    anybody's help, and `retry_after_seconds` when, if the answer said so. `request_id` finds the request in the log and the
    audit record. `upstream` is what Imburse said, `{"status", "errorCode"?, "correlationId"?}`, where it said something.
    It never holds a token, a key, or anything of an answer that is not the vending machine's own.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int = 0,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
        request_id: str | None = None,
        upstream: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(code, detail)  # these two alone, so that it can be pickled: a pool of processes passes it on
        self.code = code
        self.detail = detail
        self.status = status
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        self.upstream = upstream

    def __str__(self) -> str:
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.code}: {self.detail}{request}"

    def again(self) -> VendingFailed:
        """Its double, for another thread: an exception that two threads raise collects the tracebacks of both."""
        double = type(self)(self.code, self.detail)
        double.__dict__.update(self.__dict__)
        return double

    @classmethod
    def from_problem(cls, document: object, *, retry_after_seconds: float | None = None) -> VendingFailed | None:
        """Read a problem document; None if it is not one of the vending machine's."""
        if not isinstance(document, dict):
            return None
        kind, status, detail = document.get("type"), document.get("status"), document.get("detail")
        known = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
        if known is None or not isinstance(status, int) or not 400 <= status <= 599 or not isinstance(detail, str):
            return None
        after = document.get("retryAfter", retry_after_seconds)
        return cls(
            known[1],
            "".join(character if character.isprintable() else " " for character in detail[:_LONGEST_DETAIL]),
            status=status,
            retryable=status in (429, 503),
            retry_after_seconds=after if isinstance(after, (int, float)) and 0 <= after <= 86_400 else None,
            request_id=plain_correlation_id(document.get("requestId")),
            upstream=_upstream(document.get("upstream")),
        )

    @classmethod
    def from_error(cls, error: VendingError) -> VendingFailed:
        """The same error, raised in this process and not sent over a wire."""
        return cls(
            error.code,
            error.detail,
            status=error.status,
            retryable=error.retryable,
            retry_after_seconds=error.retry_after_seconds,
            upstream=error.upstream.as_dict() if error.upstream else None,
        )


def unexpected(what: str, *, status: int = 0) -> VendingFailed:
    """The error for an answer that is not the vending machine's; `what` is our own text and holds nothing of it."""
    return VendingFailed(UNEXPECTED_ANSWER, what, status=status)


def read_json(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The JSON of a body, None if it is none: the error of a JSON parser would carry the body."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _upstream(value: object) -> dict[str, Any] | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("status"), int):
        return None
    ids = {name: plain_correlation_id(value.get(name)) for name in ("errorCode", "correlationId")}
    return {"status": value["status"], **{name: text for name, text in ids.items() if text is not None}}
