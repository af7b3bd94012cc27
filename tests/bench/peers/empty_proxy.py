"""A function that does nothing behind API Gateway."""

from __future__ import annotations

from typing import Any


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer a REST proxy event with nothing."""
    return {"statusCode": 200, "body": "{}"}
