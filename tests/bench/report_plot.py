"""Everything that was measured as one picture, readable at the width of a README: bars, lines along an axis, and how far each target is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.report import SCALES, shown, words
from tests.bench.side_by_side import Comparison, Timing, Unit, Verdict, by_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, COLUMN_INCHES = 2, 4.8
BAR_INCHES, FAMILY_INCHES, AROUND_INCHES = 0.38, 2.8, 0.8
DOTS_PER_INCH = 160
FLOOR, OURS, MET, MISSED = "tab:gray", "tab:blue", "tab:green", "tab:red"
# A bar's ends, and its label's foot, from its place downwards: what marks a bar stays below its label.
TOP, BOTTOM, LABEL = 0.02, 0.38, -0.02


def plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write it there; the kind of file is the name's ending."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    alone = [comparison for comparison in comparisons if comparison.at is None]
    panels: list[tuple[float, Callable[[Axes], None]]] = [
        (_bars_inches(len(one.timings)), partial(_bars, comparison=one)) for one in alone
    ]
    for family in by_axis(comparisons):
        draw = _lines if family[0].unit == "/s" else _groups
        panels.append((FAMILY_INCHES + AROUND_INCHES, partial(draw, family=family)))
    panels.sort(key=lambda panel: panel[0])  # so that those beside each other are of one height, more or less
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    heights = [max(inches for inches, _ in row) for row in rows]
    verdicts = [(comparison, verdict) for comparison in comparisons for verdict in comparison.verdicts()]
    if verdicts:
        heights.append(_bars_inches(len(verdicts)))
    figure = plt.figure(figsize=(COLUMN_INCHES * COLUMNS, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for number, row in enumerate(rows):
        for column, (_, draw_panel) in enumerate(row):
            draw_panel(figure.add_subplot(grid[number, column]))
    if verdicts:
        _targets(figure.add_subplot(grid[-1, :]), verdicts)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def title(family: Sequence[Comparison]) -> str:
    """What they are about: the parts between commas that they begin with."""
    first, *others = (comparison.what.split(", ") for comparison in family)
    count = next((n for n in range(len(first), 0, -1) if all(other[:n] == first[:n] for other in others)), len(first))
    return ", ".join(first[:count])


def used(verdict: Verdict) -> float:
    """How much of what the target allows, 1 being all of it; nothing where the subject is below what it is held against."""
    return max(0.0, verdict.figure / verdict.target.at_most)


def told(comparison: Comparison, verdict: Verdict) -> str:
    """The target, and how much of it is used up."""
    share = f"{used(verdict):.0%} of it" if verdict.figure >= 0 else f"below {verdict.beside.name}"
    return f"{comparison.what}: {words(verdict.target, comparison.unit)}: {share}"


def _bars_inches(count: int) -> float:
    return AROUND_INCHES + BAR_INCHES * count


def _bars(axis: Axes, comparison: Comparison) -> None:
    """A bar each, and a mark where a bar is to end at the latest."""
    timings = comparison.timings
    name, size = _scale(timings, comparison.unit)
    places = {timing.name: place for place, timing in enumerate(timings)}
    values = [timing.p50 / size for timing in timings]
    labels = [f"{timing.name}: {shown(timing.p50, comparison.unit)}" for timing in timings]
    _labelled(axis, values, labels, [FLOOR, *[OURS] * (len(timings) - 1)])
    for verdict in comparison.verdicts():
        beside, most = verdict.beside.p50, verdict.target.at_most
        limit = (beside * most if verdict.target.by == "ratio" else beside + most) / size
        _mark(axis, limit, places[verdict.subject.name], MET if verdict.met else MISSED)
    axis.set_xlabel(f"median, {name}", fontsize="small")
    axis.set_title(comparison.what, loc="left", fontsize="medium")


def _lines(axis: Axes, family: Sequence[Comparison]) -> None:
    """A line a name, of its medians."""
    name, size = _scale([timing for comparison in family for timing in comparison.timings], family[0].unit)
    for number, (who, line) in enumerate(_by_name(family).items()):
        axis.plot(list(line), [timing.p50 / size for timing in line.values()], "o-", color=f"C{number}", label=who)
    axis.set_ylim(bottom=0)
    _along(axis, family, name)


def _groups(axis: Axes, family: Sequence[Comparison]) -> None:
    """A bar a name at each place, and above it dotted up to the p99 where there is one. By powers of ten where it is time."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    unit, timings = family[0].unit, [timing for comparison in family for timing in comparison.timings]
    name, size = _scale(timings, unit)
    by_name = _by_name(family)
    width = 0.84 / len(by_name)
    for number, (who, line) in enumerate(by_name.items()):
        places = [place - 0.42 + width * (number + 0.5) for place in line]
        values = [timing.p50 / size for timing in line.values()]
        axis.bar(places, values, width * 0.9, color=f"C{number}", label=who)
        for place, timing in zip(places, line.values(), strict=True):
            if timing.p99 is not None:
                axis.plot([place] * 2, [timing.p50 / size, timing.p99 / size], ":_", color=f"C{number}")
    if unit == "s" and all(timing.p50 > 0 for timing in timings):  # from no latency at all to a third of a second
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    _along(axis, family, name, " (dotted: p99)" if any(timing.p99 is not None for timing in timings) else "")


def _along(axis: Axes, family: Sequence[Comparison], unit: str, more: str = "") -> None:
    """What lines and groups have in common."""
    axis.set_xticks(range(len(family)), [f"{comparison.at.value:,g}" for comparison in family if comparison.at])
    axis.set_xlabel(family[0].at.axis if family[0].at else "", fontsize="small")
    axis.set_ylabel(f"median, {unit}{more}", fontsize="small")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False)
    axis.set_title(title(family), loc="left", fontsize="medium")


def _by_name(family: Sequence[Comparison]) -> dict[str, dict[int, Timing]]:
    """Each one's timings, by the number of the place that it is at."""
    made: dict[str, dict[int, Timing]] = {}
    for place, comparison in enumerate(family):
        for timing in comparison.timings:
            made.setdefault(timing.name, {})[place] = timing
    return made


def _targets(axis: Axes, verdicts: Sequence[tuple[Comparison, Verdict]]) -> None:
    """How much of what is allowed is used up: left of the mark is met."""
    values = [used(verdict) for _, verdict in verdicts]
    colours = [MET if verdict.met else MISSED for _, verdict in verdicts]
    _labelled(axis, values, [told(comparison, verdict) for comparison, verdict in verdicts], colours)
    for place in range(len(values)):
        _mark(axis, 1, place, "black")
    axis.set_xlim(0, max(1.1, *values))
    axis.set_xlabel("of what the target allows", fontsize="small")
    axis.set_title("Targets", loc="left", fontsize="medium")


def _labelled(axis: Axes, values: Sequence[float], labels: Sequence[str], colours: Sequence[str]) -> None:
    """Bars from top to bottom, what each is above it: names are too long to stand beside them."""
    middle, height = (TOP + BOTTOM) / 2, BOTTOM - TOP
    axis.barh([place + middle for place in range(len(values))], values, height=height, color=colours)
    for place, label in enumerate(labels):
        axis.text(0, place + LABEL, label, fontsize="small", verticalalignment="bottom")
    axis.set_yticks([])
    axis.set_ylim(len(values) - 0.45, -0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _mark(axis: Axes, value: float, place: int, colour: str) -> None:
    """A line across a bar, and not across its label."""
    axis.plot([value, value], [place + TOP, place + BOTTOM], color=colour, linewidth=2.5, solid_capstyle="butt")


def _scale(timings: Sequence[Timing], unit: Unit) -> tuple[str, float]:
    largest = max(abs(timing.p50) for timing in timings)
    return next((scale for scale in SCALES[unit] if largest >= scale[1]), SCALES[unit][-1])
