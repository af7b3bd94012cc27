"""Times things beside each other in one run: each round every contestant once, so that a busy moment of the machine meets all.

What is compared are medians, as ratios to the one that the others are held against. Nothing here passes or fails.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import cpu_count
from typing import Any

from rich.table import Table

# A percentile of fewer samples than this would be its largest sample, by another name.
LEAST_SAMPLES_FOR_P99 = 100


@dataclass(frozen=True)
class Contestant:
    """What is timed. `prepare` comes before each sample and is not timed.

    A sample is the mean of `calls` calls in a row: one call of a microsecond is no more than the clock's own noise. All of them
    together should stay below a millisecond: on a busy machine a longer sample is interrupted more often than a shorter one.
    """

    name: str
    run: Callable[[], object]
    calls: int = 1
    prepare: Callable[[], object] = lambda: None

    def sample(self, clock: Callable[[], float]) -> float:
        """Seconds a call."""
        self.prepare()
        run, calls = self.run, range(self.calls)
        began = clock()
        for _ in calls:
            run()
        return (clock() - began) / self.calls


@dataclass(frozen=True)
class Timing:
    """The samples of one contestant, in seconds a call; `ratio` is its median over that of the one it is held against."""

    name: str
    calls: int
    samples: tuple[float, ...] = field(repr=False)
    ratio: float

    @property
    def p50_seconds(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def p99_seconds(self) -> float | None:
        """The sample that at most one in a hundred exceeds; None of too few, or of means, which hide what is slow."""
        if self.calls > 1 or len(self.samples) < LEAST_SAMPLES_FOR_P99:
            return None
        return sorted(self.samples)[math.ceil(0.99 * len(self.samples)) - 1]


@dataclass(frozen=True)
class Comparison:
    """The timings of one question; the first is what the others are held against. `target` is words, for the reader."""

    what: str
    target: str
    timings: tuple[Timing, ...]


def compare(
    what: str,
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    warm_up: int,
    target: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Run all in turn, `warm_up` rounds that do not count and `rounds` that do; the first is held against itself too."""
    samples: list[list[float]] = [[] for _ in contestants]
    for number in range(warm_up + rounds):
        # Each round begins with another one: nobody always comes after the one that leaves the caches worst.
        for turn in range(len(contestants)):
            index = (number + turn) % len(contestants)
            seconds = contestants[index].sample(clock)
            if number >= warm_up:
                samples[index].append(seconds)
    floor = statistics.median(samples[0])
    timings = (
        Timing(contestant.name, contestant.calls, tuple(mine), statistics.median(mine) / floor)
        for contestant, mine in zip(contestants, samples, strict=True)
    )
    return Comparison(what, target, tuple(timings))


def shown_seconds(seconds: float | None) -> str:
    """Three digits and a unit: `1.23 ms`."""
    if seconds is None:
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.{2 - min(2, int(math.log10(seconds / size)))}f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The comparison as the cells of a table: what, samples, p50, p99, ratio."""
    return [
        (
            timing.name,
            f"{len(timing.samples)}" + (f" of {timing.calls}" if timing.calls > 1 else ""),
            shown_seconds(timing.p50_seconds),
            shown_seconds(timing.p99_seconds),
            f"{timing.ratio:.2f} x",
        )
        for timing in comparison.timings
    ]


def table(comparison: Comparison) -> Table:
    """The comparison for a terminal."""
    shown = Table(
        title=comparison.what, title_justify="left", caption=comparison.target or None, caption_justify="left"
    )
    shown.add_column("", min_width=44)
    for heading in ("samples", "p50", "p99", "beside the first"):
        shown.add_column(heading, justify="right")
    for cells in rows(comparison):
        shown.add_row(*cells)
    return shown


def document(comparisons: Sequence[Comparison], *, at: datetime) -> dict[str, Any]:
    """All of it as JSON, with the samples in seconds, when it was and on what kind of machine, by no name of its own."""
    return {
        "at": at.isoformat(timespec="seconds"),
        "machine": {
            "cores": cpu_count(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "comparisons": [
            {
                "what": comparison.what,
                "target": comparison.target,
                "timings": [
                    {
                        "name": timing.name,
                        "calls": timing.calls,
                        "p50Seconds": timing.p50_seconds,
                        "p99Seconds": timing.p99_seconds,
                        "ratio": timing.ratio,
                        "samples": timing.samples,
                    }
                    for timing in comparison.timings
                ],
            }
            for comparison in comparisons
        ],
    }
