"""The probe: `{}` from its schedule each 15 minutes, `{"credential": "sandbox/tenant-a"}` on demand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from handlers import started
from imburse_auth.retry import Deadline
from vending.errors import bare
from vending.probing import Probing

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

probing = Probing.from_env(os.environ)
started()


def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Answer with what was found, by credential; the log and the metrics have it too."""
    deadline = Deadline.after(context.get_remaining_time_in_millis() / 1000)
    try:
        return probing.run(event, request_id=context.aws_request_id, deadline=deadline)
    except Exception as exc:  # noqa: BLE001 - raised again, without what it holds
        raise bare(exc) from None
