"""`make bench` still runs against what it measures: one round of each, and no figure is judged."""

from __future__ import annotations

from unittest import mock

import pytest

from tests.bench import micro
from tests.bench.side_by_side import Comparison, Timing


def measured(name: str) -> list[dict[str, Timing]]:
    """One round, with a batch of two waves from an Imburse that answers at once."""
    measure = micro.COMPARISONS[name][0]
    with mock.patch.multiple(micro, BATCH=40, LATENCY_SECONDS=0.0):
        answer = measure(1)
    comparisons = [answer] if isinstance(answer, Comparison) else answer
    return [{timing.name: timing for timing in comparison.timings} for comparison in comparisons]


@pytest.mark.parametrize(
    ("name", "floor", "subject"),
    [
        ("sign", "hmac.digest and two base64 calls", "sign"),
        ("decide", "1 rule", "1,000 rules"),
        ("decide-at-worst", "1 rule", "1,000 rules, all name the caller"),
        ("load", "1 rule", "1,000 rules"),
        ("claim", "a bare conditional delete", "claim"),
        ("batch", "2 bare exchanges one after the other", "a batch of 40"),
    ],
)
def test_every_subject_is_measured_beside_its_floor(name: str, floor: str, subject: str) -> None:
    for timings in measured(name):
        assert next(iter(timings)) == floor
        assert timings[floor].ratio == 1
        assert timings[subject].p50 > 0
