"""What an invocation is made of, shared by the modules of the Lambda host."""

from __future__ import annotations

import json
from dataclasses import dataclass

LATEST = "$LATEST"
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
"""Lambda's limit on a synchronous request; an answer may have 100 bytes more."""
MAX_ANSWER_BYTES = MAX_PAYLOAD_BYTES + 100


@dataclass(frozen=True)
class Invocation:
    """One request on its way to an execution environment; `client_context` is JSON text in ASCII."""

    request_id: str
    function_arn: str
    payload: bytes
    trace_id: str
    client_context: str | None


@dataclass(frozen=True)
class Outcome:
    """What an execution environment made of an invocation; `function_error` as in X-Amz-Function-Error."""

    payload: bytes
    function_error: str | None = None
    log_tail: str = ""

    @classmethod
    def unhandled(cls, error_type: str, message: str) -> Outcome:
        """A failure that Lambda itself reports, in its words."""
        return cls(json.dumps({"errorType": error_type, "errorMessage": message}).encode(), "Unhandled")


@dataclass(frozen=True)
class LogLine:
    """One line that a function wrote, with the function's name."""

    function: str
    text: str
