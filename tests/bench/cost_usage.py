"""What something used, as amounts by meter, and the arithmetic on it.

| meter | is |
|---|---|
| `call <service>.<Operation>` | calls to AWS |
| `sent`, `received` | bytes of those calls and of their answers, with headers |
| `write <partition>`, `read <partition>` | DynamoDB request units, by the first part of the partition key: `pool`, `level`, `brake`, ... |
| `exchange`, `exchange sent`, `exchange received` | requests to Imburse, their bytes and those of the answers, with headers, without TLS |
| `log <kind>` | bytes that CloudWatch Logs takes in: `audit`, `metrics`, `log`, `platform` (Lambda's own lines), `access` (API Gateway's) |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Usage = Mapping[str, float]

WRITE_UNIT_BYTES, READ_UNIT_BYTES = 1_024, 4_096
LOG_EVENT_BYTES = 26  # CloudWatch Logs counts so many for each line besides the line itself


def combined(parts: Iterable[tuple[float, Usage]]) -> dict[str, float]:
    """So many times each, added up. What comes to nothing is left out."""
    total: dict[str, float] = {}
    for times, usage in parts:
        for meter, amount in usage.items():
            total[meter] = total.get(meter, 0.0) + times * amount
    return {meter: amount for meter, amount in sorted(total.items()) if abs(amount) > 1e-12}


def total(usage: Usage, kind: str) -> float:
    """All meters of a kind together: `call`, or `call dynamodb` for one service."""
    return sum(amount for meter, amount in usage.items() if meter == kind or meter.startswith((f"{kind} ", f"{kind}.")))


def write_units(item_bytes: int) -> int:
    """To write or delete an item, or to fail to by its condition: one a whole or begun KiB, at least one."""
    return max(1, math.ceil(item_bytes / WRITE_UNIT_BYTES))


def read_units(read_bytes: int) -> int:
    """To read consistently: one a whole or begun 4 KiB of all that a query goes over, projected or not, at least one."""
    return max(1, math.ceil(read_bytes / READ_UNIT_BYTES))
