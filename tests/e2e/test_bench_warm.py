"""The benches of warm vends, throughput and memory still run against what they measure: one round, and no figure is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from unittest import mock

import pytest

from tests.bench import throughput, warm
from tests.bench.callers import Order, callers
from tests.bench.side_by_side import Comparison
from tests.bench.whole_stack import WholeStack, whole_stack


@pytest.fixture(scope="module")
def stack() -> Iterator[WholeStack]:
    with whole_stack(environments=1) as running:
        yield running


@pytest.fixture(autouse=True)
def one_stack_for_all(stack: WholeStack) -> Iterator[None]:
    """Starting one takes seconds."""
    with (
        mock.patch.object(warm, "whole_stack", return_value=nullcontext(stack)),
        mock.patch.object(throughput, "whole_stack", return_value=nullcontext(stack)),
    ):
        yield


def names(comparison: Comparison) -> list[str]:
    return [timing.name for timing in comparison.timings]


def one_round(measure: Callable[[int], Comparison | Sequence[Comparison]]) -> list[Comparison]:
    """With little latency, small batches and short slices."""
    with (
        mock.patch.multiple(warm, LATENCIES_SECONDS=(0.0, 0.01), BATCH=4, BATCH_LATENCY_SECONDS=0.0),
        mock.patch.multiple(throughput, CALLERS=(1, 4), SLICE_SECONDS=0.1),
    ):
        made = measure(1)
    return [made] if isinstance(made, Comparison) else list(made)


def test_both_doors_and_their_handlers_stand_beside_the_bare_exchange_at_each_latency() -> None:
    fast, slow = one_round(warm.warm)
    ours = [warm.HANDLER, warm.API_HANDLER, warm.DOOR, warm.API_DOOR]
    assert names(slow) == [warm.BARE, *ours]
    assert names(fast) == [warm.BARE, *ours, warm.FLOOR, warm.API_FLOOR]
    for comparison in (fast, slow):
        assert [target.name for target in comparison.targets] == [warm.HANDLER, warm.API_HANDLER]
        assert all(timing.p50 > 0 for timing in comparison.timings)
    assert all(timing.p50 > 0.01 for timing in slow.timings)


def test_a_pooled_vend_is_measured_at_each_latency() -> None:
    (comparison,) = one_round(warm.pooling)
    assert names(comparison) == ["Imburse at 0 ms", "Imburse at 10 ms"]


def test_a_batch_out_of_the_pool_is_measured_beside_one_in_line() -> None:
    (comparison,) = one_round(warm.pool_batching)
    assert names(comparison) == ["4 tokens exchanged in line", "4 tokens out of the pool"]


def test_vends_a_second_are_counted_for_each_number_of_callers() -> None:
    one, four = one_round(throughput.throughput)
    for comparison, count in ((one, 1), (four, 4)):
        assert names(comparison) == ["the tutorial's vend", "vend", "an empty function"]
        assert comparison.at is not None
        assert comparison.at.value == count
        assert all(timing.p50 > 0 for timing in comparison.timings)


def test_the_memory_of_one_environment_is_of_its_own_process() -> None:
    started, first, last = one_round(throughput.memory)
    for comparison in (started, first, last):
        assert all(2**20 < timing.p50 < 2**30 for timing in comparison.timings)
        tutorial, vend, empty = (timing.p50 for timing in comparison.timings)
        assert empty < min(tutorial, vend)


def test_an_answer_that_is_not_what_was_wanted_ends_the_measurement(stack: WholeStack) -> None:
    order = Order(f"{stack.doors.invoke}/2015-03-31/functions/nobody/invocations", "{}", "accessToken", most=1)
    with callers() as process, pytest.raises(AssertionError, match="status 404"):
        process.rate(order)
