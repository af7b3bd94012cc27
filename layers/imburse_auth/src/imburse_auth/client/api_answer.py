"""What comes back over HTTP: tokens, a problem document, API Gateway's own refusal, or something else altogether."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from imburse_auth.client.failed import VendingFailed, read_json, unexpected
from imburse_auth.client.vended import Vended
from imburse_auth.errors import plain_correlation_id

# API Gateway's x-amzn-ErrorType, and what to look at. Only these are repeated: the header is not ours.
_GATEWAY_HINTS = {
    "MissingAuthenticationTokenException": "no such route: is VENDING_API the stack's output ApiUrl, with its stage?",
    "IncompleteSignatureException": "the signature did not arrive whole: something between changes the headers",
    "InvalidSignatureException": "the signature is wrong: the secret access key, the region, or this machine's clock",
    "SignatureDoesNotMatch": "the signature is wrong: the secret access key, the region, or this machine's clock",
    "UnrecognizedClientException": "AWS does not know this access key",
    "ExpiredTokenException": "the AWS credentials of this process have expired",
    "AccessDeniedException": "IAM or the API's resource policy does not let this role call it (the output ApiCallerPolicy)",
    "ForbiddenException": "no API answers here: is VENDING_API the stack's output ApiUrl, and reached from its VPC?",
    "LimitExceededException": "API Gateway's own limit",
    "TooManyRequestsException": "API Gateway's own limit",
    "InternalServerErrorException": "the function did not answer, or not in time",
}


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> Any:  # noqa: ANN401 - its JSON
    """The JSON of a 200. Raises VendingFailed for everything else."""
    payload = read_json(body)
    if status == 200:
        if payload is None:
            raise unexpected("the answer is not JSON: a proxy's page, or another server", status=status)
        return payload
    if 300 <= status <= 399:
        raise unexpected("the answer is a redirect, which is not followed: is VENDING_API right?", status=status)
    after = _retry_after_seconds(headers.get("Retry-After"))
    failure = VendingFailed.from_problem(payload, retry_after_seconds=after)
    if failure is not None and failure.status == status:
        raise failure
    raise _of_gateway(status, headers, after)


def _of_gateway(status: int, headers: Mapping[str, str], after: float | None) -> VendingFailed:
    # The type may be followed by a colon and a URL.
    kind = headers.get("x-amzn-ErrorType", "").split(":")[0]
    hint = _GATEWAY_HINTS.get(kind)
    if hint is None:
        return unexpected(f"the answer is HTTP {status} and not the vending machine's", status=status)
    code = "throttled_by_aws" if status == 429 else "failed_in_aws" if status >= 500 else "refused_by_aws"
    return VendingFailed(
        code,
        f"API Gateway, {kind}: {hint}",
        status=status,
        retryable=status == 429 or status >= 500,
        retry_after_seconds=after,
        request_id=plain_correlation_id(headers.get("x-amzn-RequestId")),
    )


def read_batch(answer: object, credential: str, count: int) -> list[Vended]:
    """The tokens of an answer: a list of one, or a batch's `{"tokens": [...]}`, which may be partial and is then as it came.

    Raises VendingFailed (`unexpected_answer`) for none, for more than were asked for, for another credential's, and for one
    that stands there twice: a token must not be used twice, whoever slipped.
    """
    members = answer.get("tokens") if isinstance(answer, dict) else answer
    if not isinstance(members, list) or not 1 <= len(members) <= count:
        raise unexpected("the answer does not have the tokens that were asked for", status=200)
    tokens = [Vended.from_answer(member) for member in members]
    if any(token.credential != str(credential) for token in tokens):
        raise unexpected("credential: the answer is for another one", status=200)
    if len({token.access_token for token in tokens}) != len(tokens):
        raise unexpected("tokens: one stands there twice", status=200)
    return tokens


def _retry_after_seconds(value: str | None) -> float | None:
    if value is None or not (value.isascii() and value.isdigit()):
        return None  # the vending machine answers whole seconds
    return float(math.ceil(int(value[:10])))
