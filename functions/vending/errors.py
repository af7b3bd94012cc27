"""The errors that the functions add to the layer's: what a caller did, and what happened in here."""

from __future__ import annotations

import traceback
from typing import TypeVar

from imburse_auth.errors import VendingError

_Leaving = TypeVar("_Leaving", bound=Exception)


class InvalidRequest(VendingError):
    """The request itself is wrong: a malformed id, a count out of range, an unknown field, a body that is not JSON."""

    code, status, title = "invalid_request", 400, "The request is not valid"


class NotAuthorized(VendingError):
    """The policy says no, or nobody vouches for the caller. What exactly goes to the log only."""

    code, status, title = "not_authorized", 403, "The caller may not do this"

    def __init__(self, reason: str) -> None:
        super().__init__("this caller may not do this with this credential", reason=reason)


class ProofUnavailable(VendingError):
    """STS could not say who signed a proof, or the table could not say whether it was used before."""

    code, status, title, retryable = "proof_unavailable", 503, "The caller's proof cannot be checked", True
    default_retry_after_seconds = 1


class OverBudget(VendingError):
    """The budget of the rule that allowed it is spent. `retry_after_seconds` is when its window ends."""

    code, status, title, retryable = "over_budget", 429, "The caller's budget is spent", True


class BrakeUnavailable(VendingError):
    """The table that holds what is frozen did not take a freeze or a thaw. No vend ever ends with this."""

    code, status, title, retryable = "brake_unavailable", 503, "The brake cannot be reached", True
    default_retry_after_seconds = 1


class AuditUnavailable(VendingError):
    """The audit record could not be written, so nothing is handed out."""

    code, status, title, retryable = "audit_unavailable", 503, "The audit record cannot be written", True
    default_retry_after_seconds = 5


class InternalError(VendingError):
    """A bug. The log says where; the caller learns only that it was us."""

    code, status, title = "internal_error", 500, "Something is wrong on our side"


def bare(exc: _Leaving) -> _Leaving:
    """The error as it may leave a function.

    Its message is one line of printable ASCII (but for the operating system's own, of an OSError), nothing that led to it is
    shown, and its traceback says where but holds no value any more, except in the handler's own frame, which still runs: some
    reporters print the locals of each frame, and a key was one of them once.
    """
    traceback.clear_frames(exc.__traceback__)
    exc.__cause__ = exc.__context__ = None
    for part in exc.exceptions if isinstance(exc, ExceptionGroup) else ():
        bare(part)
    text = str(exc)
    if not (text.isascii() and text.isprintable()):
        exc.args = (ascii(text)[1:-1],)
    return exc
