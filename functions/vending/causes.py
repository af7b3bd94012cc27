"""What ails a credential, in words that an operator can act on: made of the error that ended its probe."""

from __future__ import annotations

from typing import Literal

from imburse_auth.errors import (
    CredentialMisconfigured,
    CredentialNotFound,
    SecretsUnavailable,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnavailable,
    VendingError,
)
from imburse_auth.exchange import MAX_CLOCK_SKEW_SECONDS

Step = Literal["secret", "exchange", "identity"]

_HOSTS = ("baseUrl: is not", "environment: ")  # how the details of imburse_auth.hosts begin
_DENIED = ("AccessDeniedException", "AccessDenied", "UnrecognizedClientException", "ExpiredTokenException")
_UNDECRYPTED = ("DecryptionFailure", "KMS")
# Parts of error codes. The vendor prints no list of its codes, so a code that has none of these in it is told as it is.
_REFUSALS = (
    ("REVOKED", "the key is revoked: store a new one"),
    ("NOT_FOUND", "Imburse does not know the key: it was deleted, or belongs to another environment"),
    ("SIGNATURE", "the private key does not belong to the public key, or was pasted wrongly"),
    ("NONCE", "Imburse says that it has seen the nonce before: something on the way repeats requests"),
)


def cause_of(error: VendingError, step: Step, *, skew_seconds: float | None, clock_explains: bool) -> str:
    """One sentence on why a probe failed in `step`: it names fields, codes and seconds, never a value of the secret.

    `skew_seconds` is how far Imburse's clock is ahead of ours, None if unknown; `clock_explains` says that the clocks are
    too far apart for the refusal to mean the key.
    """
    if clock_explains and skew_seconds is not None:
        return f"{_apart(skew_seconds)}, more than can be corrected for: Imburse takes the signature for an old one"
    cause = _cause(error, step)
    if skew_seconds is not None and abs(skew_seconds) > MAX_CLOCK_SKEW_SECONDS:
        return f"{cause}; besides, {_apart(skew_seconds)}"
    return cause


def well(skew_seconds: float | None) -> str:
    """What is said of a credential that works."""
    if skew_seconds is None or abs(skew_seconds) <= MAX_CLOCK_SKEW_SECONDS:
        return "ok"
    return f"ok, but {_apart(skew_seconds)}: each new execution environment is refused once before it corrects for that"


def _apart(skew_seconds: float) -> str:
    return f"Imburse's clock is {abs(skew_seconds):.0f} s {'ahead of' if skew_seconds > 0 else 'behind'} ours"


def _cause(error: VendingError, step: Step) -> str:
    match error:
        case CredentialNotFound():
            return "there is no secret, or no value in it: never stored, deleted, or marked for deletion"
        case CredentialMisconfigured() if error.detail.startswith(_HOSTS):
            return f"the host is not allowed: {error.detail} (the list is the parameter ImburseHosts)"
        case CredentialMisconfigured() if step == "identity":
            return f"the key speaks for another account or tenant: {error.detail}"
        case CredentialMisconfigured():
            return f"the secret is no usable key: {error.detail}"
        case SecretsUnavailable():
            return _unreadable(error)
        case UpstreamThrottled():
            wait = f", and asks to wait {error.retry_after_seconds} s" if error.retry_after_seconds else ""
            return f"Imburse is limiting our requests (429){wait}"
        case UpstreamUnavailable():
            return _unavailable(error)
        case UpstreamProtocol():
            return f"an answer that cannot be used, of Imburse or of something on the way: {error.detail}"
        case UpstreamRejected():
            return _rejected(error, step)
    return error.detail


def _unreadable(error: SecretsUnavailable) -> str:
    reason = error.reason or ""
    if reason in _DENIED:
        return f"access to the secret or to its KMS key is denied ({reason}): a role or a key policy was changed"
    if reason.startswith(_UNDECRYPTED):
        return f"KMS does not decrypt the secret ({reason}): its key is disabled or about to be deleted"
    return f"{error.detail} ({reason})" if reason else error.detail


def _unavailable(error: UpstreamUnavailable) -> str:
    if error.upstream is not None:
        return f"Imburse has a fault: it answers {error.upstream.status}"
    reason = error.reason or ""
    if "Timeout" in reason:
        return "Imburse does not answer in time"
    if reason == "ConnectionError":
        return "no connection to Imburse, or it hangs up without an answer"
    return error.detail


def _rejected(error: UpstreamRejected, step: Step) -> str:
    status = error.upstream.status if error.upstream else 0
    code = error.upstream.error_code if error.upstream else None
    told = f"{status} {code}" if code else str(status)
    if step == "identity" and status == 401:
        return f"Imburse refuses the token that it has just given ({told}): used or expired before it reached us"
    if step == "identity":
        return f"the key does not reach the account or tenant of the secret, or its role may not ask ({told})"
    if status == 403:
        return f"the key's role lacks access ({told}): give the key its role in the Tenant Portal"
    if status == 401:
        known = next((meaning for part, meaning in _REFUSALS if code and part in code), None)
        return f"{known} ({told})" if known else f"Imburse does not accept the key ({told}): revoked, or another pair"
    return f"Imburse refuses what is asked ({told})"
