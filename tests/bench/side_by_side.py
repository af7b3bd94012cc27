"""Times things beside each other in one run: each round every contestant once, so that a busy moment of the machine meets all.

What is compared are medians, as ratios to the one that the others are held against. Nothing here passes or fails.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

# A percentile of fewer samples than this would be its largest sample, by another name.
LEAST_SAMPLES_FOR_P99 = 100

# Of samples: seconds, how many a second, bytes.
Unit = Literal["s", "/s", "B"]


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
    """The samples of one contestant, in the unit of its comparison; `ratio` is its median over that of the first."""

    name: str
    calls: int
    samples: tuple[float, ...] = field(repr=False)
    ratio: float

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    @property
    def p99(self) -> float | None:
        """The sample that at most one in a hundred exceeds; None of too few, or of means, which hide what is slow."""
        if self.calls > 1 or len(self.samples) < LEAST_SAMPLES_FOR_P99:
            return None
        return sorted(self.samples)[math.ceil(0.99 * len(self.samples)) - 1]


@dataclass(frozen=True)
class Target:
    """`name`'s median is to be at most `at_most` times that of `beside`, or, by difference, at most so much above it in the
    comparison's unit. Beside None is the first contestant."""

    name: str
    at_most: float
    by: Literal["ratio", "difference"] = field(default="ratio", kw_only=True)
    beside: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Verdict:
    """What became of a target: the medians of its two contestants, and the figure that was to be at most `target.at_most`."""

    target: Target
    beside: Timing
    subject: Timing

    @property
    def figure(self) -> float:
        """Times as much, or so much more."""
        ours, theirs = self.subject.p50, self.beside.p50
        return ours / theirs if self.target.by == "ratio" else ours - theirs

    @property
    def met(self) -> bool:
        """As exact as the samples: 2.001 is more than 2."""
        return self.figure <= self.target.at_most


@dataclass(frozen=True)
class At:
    """Where a comparison stands among others like it: `At("callers", 16)`."""

    axis: str
    value: float


@dataclass(frozen=True)
class Comparison:
    """The timings of one question; the first is what the others are held against. KeyError: a target, or `shows`, names nobody in it.

    `shows` are those that the README's table has a row for besides those with a target; None is the last, unless there are
    targets. `measured` is when, in UTC; None until somebody says so.
    """

    what: str
    timings: tuple[Timing, ...]
    targets: tuple[Target, ...] = ()
    unit: Unit = "s"
    at: At | None = None
    shows: tuple[str, ...] | None = None
    measured: datetime | None = None

    def __post_init__(self) -> None:
        self.verdicts()
        if unknown := set(self.shows or ()) - {timing.name for timing in self.timings}:
            raise KeyError(*unknown)

    def shown(self) -> list[Timing]:
        """Those of whom the README's table tells, in their order."""
        shows = ([] if self.targets else [self.timings[-1].name]) if self.shows is None else self.shows
        names = {*shows, *(target.name for target in self.targets)}
        return [timing for timing in self.timings if timing.name in names]

    def verdicts(self) -> list[Verdict]:
        """One a target."""
        by_name = {timing.name: timing for timing in self.timings}
        return [
            Verdict(target, by_name[target.beside] if target.beside else self.timings[0], by_name[target.name])
            for target in self.targets
        ]


def compare(
    what: str,
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    warm_up: int,
    targets: Sequence[Target] = (),
    at: At | None = None,
    shows: Sequence[str] | None = None,
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
    named = [(contestant.name, contestant.calls) for contestant in contestants]
    return Comparison(what, _timings(named, samples), tuple(targets), at=at, shows=_told(shows))


def gathered(
    what: str,
    samples: Mapping[str, Sequence[float]],
    *,
    unit: Unit = "s",
    targets: Sequence[Target] = (),
    at: At | None = None,
    shows: Sequence[str] | None = None,
) -> Comparison:
    """A comparison of samples that were taken elsewhere, by name; the others are held against the first."""
    timings = _timings([(name, 1) for name in samples], list(samples.values()))
    return Comparison(what, timings, tuple(targets), unit, at, _told(shows))


def by_axis(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Those that hold things against the same along one axis together, in its order; not all of them are at every place."""
    families: dict[tuple[str, ...], list[tuple[float, Comparison]]] = {}
    for comparison in comparisons:
        if comparison.at:
            key = comparison.at.axis, comparison.unit, comparison.timings[0].name
            families.setdefault(key, []).append((comparison.at.value, comparison))
    return [[comparison for _, comparison in sorted(family, key=lambda one: one[0])] for family in families.values()]


def _told(shows: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if shows is None else tuple(shows)


def _timings(named: Sequence[tuple[str, int]], samples: Sequence[Sequence[float]]) -> tuple[Timing, ...]:
    floor = statistics.median(samples[0])
    return tuple(
        Timing(name, calls, tuple(mine), statistics.median(mine) / floor)
        for (name, calls), mine in zip(named, samples, strict=True)
    )
