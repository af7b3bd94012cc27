"""The HTTP door: API Gateway REST proxy events, signed by IAM principals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from handlers import started
from imburse_auth.errors import VendingError
from vending import answer
from vending.access import caller
from vending.request import from_api, ids_from_api
from vending.service import Vending, Visit

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

vending = Vending.from_env(os.environ)
started()


def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Answer with a proxy response, whatever happens."""
    proxied: dict[str, Any] = event if isinstance(event, dict) else {}
    request_id, correlation_id = ids_from_api(proxied)
    visit = Visit.of("api", request_id or context.aws_request_id, correlation_id, context)
    try:
        return answer.ok(vending.serve(visit, lambda: caller.from_api(proxied), lambda: from_api(proxied)))
    except VendingError as exc:
        return answer.refused(exc, visit.request_id)
