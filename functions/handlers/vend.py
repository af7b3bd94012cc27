"""The direct door: `{"credential": "sandbox/tenant-a", "count": 1}` by an invoke through an alias."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from handlers import started
from imburse_auth.errors import VendingError
from vending import answer
from vending.access import proof
from vending.request import from_invoke
from vending.service import Vending, Visit

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

vending = Vending.from_env(os.environ)
started()


def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Answer with the token or the batch, or raise the error with its problem document as the message."""
    correlation_id = event.get("correlationId") if isinstance(event, dict) else None
    visit = Visit.of("invoke", context.aws_request_id, correlation_id, context)
    try:
        return vending.serve(
            visit, lambda: proof.from_invoke(event, context.invoked_function_arn), lambda: from_invoke(event)
        )
    except VendingError as exc:
        raise answer.raised(exc, visit.request_id) from None
