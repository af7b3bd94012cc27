"""The table that the README shows: what we do, beside what, the ratio, and what became of the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from tests.bench.report import aim, became, machine, shown
from tests.bench.side_by_side import Comparison, Timing, by_axis

OPENS, CLOSES = "<!-- bench -->", "<!-- /bench -->"


def markdown(comparisons: Sequence[Comparison], *, at: datetime) -> str:
    """A line that says when and where, and a table with a row for each target, or one for a comparison that has none.

    That is its second contestant beside the first, and along an axis only at both ends.
    """
    on = machine()
    lines = [
        f"Measured on {at:%Y-%m-%d}, on {on['cores']} cores ({on['architecture']}, {on['system']}), Python {on['python']}. Medians.",
        "",
        "| what | ours | beside what | ratio | target |",
        "|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(cells) + " |" for comparison in ends(comparisons) for cells in _rows(comparison)]
    return "\n".join(lines) + "\n"


def ends(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Without those that have no target and stand between others on their axis."""
    between = {id(one) for family in by_axis(comparisons) for one in family[1:-1] if not one.targets}
    return [comparison for comparison in comparisons if id(comparison) not in between]


def placed(readme: str, block: str) -> str:
    """The README with the block between its two markers. ValueError: it has not one of each, in this order."""
    before, opens, rest = readme.partition(OPENS)
    old, closes, after = rest.partition(CLOSES)
    if not (opens and closes) or OPENS in old + after or CLOSES in before + after:
        raise ValueError(f"the README has no block between one {OPENS} and one {CLOSES}")
    return f"{before}{OPENS}\n{block}{CLOSES}{after}"


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """The cells of each row."""

    def figures(timing: Timing) -> str:
        return f"{timing.name}: {shown(timing.p50, comparison.unit)}"

    for verdict in comparison.verdicts():
        ours, beside = verdict.subject, verdict.beside
        target = f"{aim(verdict.target, comparison.unit).removesuffix(' than')}: {became(verdict)}"
        yield comparison.what, figures(ours), figures(beside), f"{ours.p50 / beside.p50:.2f} x", target
    if not comparison.targets:
        beside, ours = comparison.timings[0], comparison.timings[1 % len(comparison.timings)]
        yield comparison.what, figures(ours), figures(beside), f"{ours.ratio:.2f} x", ""
