"""The log: JSON lines by Powertools, with the correlation id, redacted."""

from __future__ import annotations

import json
import traceback
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter

from vending.record.redaction import redacted, silence_libraries


class RedactingFormatter(LambdaPowertoolsFormatter):
    """Powertools' JSON lines, each value through the redaction, and in ASCII.

    Whatever somebody else's text holds, no reader splits the line there and no output fails to encode it.
    """

    def serialize(self, log: dict[str, Any]) -> str:  # type: ignore[override]
        """The line, without anything that looks like a secret."""
        # Read back, so that whatever Powertools makes text of is looked at as the text that it became.
        return json.dumps(redacted(json.loads(super().serialize(log))), separators=(",", ":"))


def make_logger(service: str) -> Logger:
    """A logger for one function."""
    silence_libraries()
    return Logger(service=service, logger_formatter=RedactingFormatter())


def where(exc: BaseException) -> list[str]:
    """Where an exception came from, as `file:line function`: no message, no source line, no value."""
    frames = traceback.extract_tb(exc.__traceback__)
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
