"""The rotation of keys: a step by Secrets Manager, or `{}` from its schedule each hour."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from handlers import started
from imburse_auth.retry import Deadline
from vending.errors import bare
from vending.rotating import Rotating

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

rotating = Rotating.from_env(os.environ)
started()


def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Answer with what was done, or raise why it was not; Secrets Manager tries again then, and an alarm tells."""
    deadline = Deadline.after(context.get_remaining_time_in_millis() / 1000)
    try:
        return rotating.run(event, request_id=context.aws_request_id, deadline=deadline)
    except Exception as exc:  # noqa: BLE001 - raised again, without what it holds
        raise bare(exc) from None
