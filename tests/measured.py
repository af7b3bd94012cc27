"""Logs of the local stack, made by hand: metrics of functions at moments of a test's choosing."""

from __future__ import annotations

import json
from collections.abc import Sequence

NOON = 1_767_268_800  # 2026-01-01T12:00:00Z


def emf(values: dict[str, float | Sequence[float]], *sets: dict[str, str], at: float = NOON) -> str:
    """One line of a log, as the Lambda host writes it: these metrics under each set of dimensions."""
    document = {
        "_aws": {
            "Timestamp": int(at * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": "ImburseVending",
                    "Dimensions": [list(dimensions) for dimensions in sets],
                    "Metrics": [{"Name": name} for name in values],
                }
            ],
        },
        **{name: value for dimensions in sets for name, value in dimensions.items()},
        **values,
    }
    return f"imburse-vending-vend {json.dumps(document)}\n"


def by_credential(
    values: dict[str, float | Sequence[float]],
    credential: str = "sandbox/tenant-a",
    service: str = "vend",
    at: float = NOON,
) -> str:
    """What the functions write most: by service, and by service and credential."""
    return emf(values, {"service": service}, {"service": service, "credential": credential}, at=at)


def by_code(name: str, code: str, credential: str = "sandbox/tenant-a", service: str = "vend", at: float = NOON) -> str:
    """One refusal, or one token that did not come."""
    return emf({name: 1}, {"service": service}, {"service": service, "credential": credential, "code": code}, at=at)
