"""Everything that was measured as one picture: bars beside each other, lines along an axis, and how far each target is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.report import SCALES, shown, words
from tests.bench.side_by_side import Comparison, Timing, Unit, by_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
PANEL_INCHES = (5.6, 3.6)
TARGET_INCHES = 0.34
FLOOR, OURS, MET, MISSED = "tab:gray", "tab:blue", "tab:green", "tab:red"


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write it there; the kind of file is the name's ending."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    families = by_axis(comparisons)
    alone = [comparison for comparison in comparisons if comparison.at is None]
    judged = [comparison for comparison in comparisons if comparison.targets]
    panels = len(alone) + len(families)
    deep = -(-panels // COLUMNS)
    width, height = PANEL_INCHES
    heights = [height] * deep + [1 + TARGET_INCHES * sum(len(one.targets) for one in judged)] * bool(judged)
    figure = plt.figure(figsize=(width * COLUMNS, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    axes = [figure.add_subplot(grid[number // COLUMNS, number % COLUMNS]) for number in range(panels)]
    for comparison in alone:
        _bars(axes.pop(0), comparison)
    for family in families:
        _lines(axes.pop(0), family)
    if judged:
        _targets(figure.add_subplot(grid[-1, :]), judged)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def title(family: Sequence[Comparison]) -> str:
    """What they are about, with dots for the words in which they differ."""
    first, *others = (comparison.what.split() for comparison in family)
    same = [all(number < len(other) and other[number] == word for other in others) for number, word in enumerate(first)]
    return " ".join(word if alike else "…" for word, alike in zip(first, same, strict=True))


def _bars(axis: Axes, comparison: Comparison) -> None:
    """A bar each, and a mark where a bar is to end at the latest."""
    timings = comparison.timings
    name, size = _scale(timings, comparison.unit)
    places = {timing.name: place for place, timing in enumerate(timings)}
    values = [timing.p50 / size for timing in timings]
    labels = [f"{timing.name}: {shown(timing.p50, comparison.unit)}" for timing in timings]
    _labelled(axis, values, labels, [FLOOR, *[OURS] * (len(timings) - 1)])
    for verdict in comparison.verdicts():
        beside, most, place = verdict.beside.p50, verdict.target.at_most, places[verdict.subject.name]
        limit = (beside * most if verdict.target.by == "ratio" else beside + most) / size
        axis.plot([limit, limit], [place - 0.1, place + 0.45], color=MET if verdict.met else MISSED, linewidth=3)
    axis.set_xlabel(f"median, {name}")
    axis.set_title(comparison.what, loc="left", fontsize="medium")


def _lines(axis: Axes, family: Sequence[Comparison]) -> None:
    """A line a name: the median, and dotted the p99 where there is one."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    unit, timings = family[0].unit, [timing for comparison in family for timing in comparison.timings]
    name, size = _scale(timings, unit)
    for number, who in enumerate(timing.name for timing in family[0].timings):
        line = [next(timing for timing in comparison.timings if timing.name == who) for comparison in family]
        axis.plot([timing.p50 / size for timing in line], marker="o", color=f"C{number}", label=who)
        worst = [math.nan if timing.p99 is None else timing.p99 / size for timing in line]
        if unit != "/s":
            axis.plot(worst, marker="_", color=f"C{number}", linestyle=":")
    axis.set_xticks(range(len(family)), [f"{comparison.at.value:g}" for comparison in family if comparison.at])
    axis.set_xlabel(family[0].at.axis if family[0].at else "")
    positive = all(timing.p50 > 0 for timing in timings)
    if unit == "s" and positive:  # from no latency at all to a third of a second
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
    elif positive:
        axis.set_ylim(bottom=0)
    axis.set_ylabel(f"{name}, median" + (" (dotted: p99)" if unit == "s" else ""))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    axis.set_title(title(family), loc="left", fontsize="medium")


def _targets(axis: Axes, comparisons: Sequence[Comparison]) -> None:
    """How much of what is allowed is used up: left of the line is met."""
    named = [
        (f"{comparison.what}: {words(verdict.target, comparison.unit)}", verdict)
        for comparison in comparisons
        for verdict in comparison.verdicts()
    ]
    used = [verdict.figure / verdict.target.at_most for _, verdict in named]
    labels = [f"{name}: {share:.0%} of it" for (name, _), share in zip(named, used, strict=True)]
    _labelled(axis, used, labels, [MET if verdict.met else MISSED for _, verdict in named])
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xlim(min(0, *used), max(1.1, *used))
    axis.set_xlabel("of what the target allows")
    axis.set_title("Targets", loc="left", fontsize="medium")


def _labelled(axis: Axes, values: Sequence[float], labels: Sequence[str], colours: Sequence[str]) -> None:
    """Bars from top to bottom, what each is above it: names are too long to stand beside them."""
    axis.barh([place + 0.2 for place in range(len(values))], values, height=0.36, color=colours)
    for place, label in enumerate(labels):
        axis.text(0, place - 0.02, label, fontsize="small", verticalalignment="bottom")
    axis.set_yticks([])
    axis.set_ylim(len(values) - 0.45, -0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _scale(timings: Sequence[Timing], unit: Unit) -> tuple[str, float]:
    largest = max(abs(timing.p50) for timing in timings)
    return next((scale for scale in SCALES[unit] if largest >= scale[1]), SCALES[unit][-1])
