"""More patience with DynamoDB than the 0.3 s of the functions, for what is to come out of a pool however busy the machine is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from vending.supply.pool import Pool
from vending.supply.supply import Supply
from vending.table import dynamodb_client

_IMPATIENT: tuple[Callable[..., Any], ...] = (Pool.__init__, Supply.__init__, dynamodb_client)


@contextmanager
def patient(seconds: float = 30) -> Iterator[None]:
    """What is made in the block, a client, a pool or a whole machine, waits for the table so long."""
    with ExitStack() as stack:
        for made in _IMPATIENT:
            stack.enter_context(mock.patch.dict(made.__kwdefaults__, {"patience_seconds": seconds}))
        yield
