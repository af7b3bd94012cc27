"""A function that does nothing: what Python and the runtime client cost by themselves."""

from __future__ import annotations

from typing import Any


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer with nothing."""
    return {}
