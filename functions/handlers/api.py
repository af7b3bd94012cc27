"""The HTTP door: API Gateway REST proxy events, signed by IAM principals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from imburse_auth.errors import VendingError
from vending import answer
from vending.access import caller
from vending.request import correlation_id_from_api, from_api
from vending.service import Vending, Visit

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

vending = Vending.from_env(os.environ)


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer with a proxy response, whatever happens."""
    request_id = event.get("requestContext", {}).get("requestId") or context.aws_request_id
    visit = Visit.of("api", request_id, correlation_id_from_api(event), context)
    try:
        return answer.ok(vending.serve(visit, lambda: caller.from_api(event), lambda: from_api(event)))
    except VendingError as exc:
        return answer.refused(exc, visit.request_id)
