"""Figures of a run: how long visits took, and how much memory environments hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from tests.load.conduct import Outcome


def growths_mib(outcome: Outcome) -> Iterator[float]:
    """Of each that lived through the second half: the median of its last tenth less that of the half's first tenth."""
    length = outcome.ended - outcome.began
    half, tenth = outcome.began + length / 2, length / 10
    for one in outcome.environments:
        first = [size for at, size in one.samples if half <= at <= half + tenth]
        last = [size for at, size in one.samples if at >= outcome.ended - tenth]
        if one.function in ("api", "vend") and first and last and one.samples[0][0] <= half:
            yield (median(last) - median(first)) / 2**20


def percentiles(outcome: Outcome) -> dict[str, tuple[int, float, float]]:
    """By door, of the visits that were served: how many, p50 and p99 in seconds."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for visit in outcome.visits:
        if visit.code is None:
            seconds[visit.door].append(visit.ended - visit.started)
    return {door: (len(all_), _at(all_, 0.5), _at(all_, 0.99)) for door, all_ in sorted(seconds.items())}


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
