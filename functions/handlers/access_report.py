"""The daily access report, started by EventBridge Scheduler: a scheduled job to copy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from handlers import started
from imburse_auth.retry import Deadline
from vending.errors import bare
from vending.report import AccessReport

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

report = AccessReport.from_env(os.environ)
started()


def handler(event: object, context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001 - the schedule says all by firing
    """Answer with what was reached, or raise with what was not; the log has the details."""
    try:
        return report.run(Deadline.after(context.get_remaining_time_in_millis() / 1000))
    except Exception as exc:  # noqa: BLE001 - raised again, without what it holds
        raise bare(exc) from None
