"""The table that the README shows: what we do, beside what, the ratio, and what became of the target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.bench.report import aim, became, p99, shown
from tests.bench.side_by_side import Comparison, Timing, Verdict

OPENS, CLOSES = "<!-- bench -->", "<!-- /bench -->"
HEADINGS = ("what", "measured", "p50", "p99", "beside", "its p50", "its p99", "ratio", "target")


def markdown(comparisons: Sequence[Comparison], *, on: Mapping[str, Any]) -> str:
    """A line that says when and on what machine, and a table with a row for everybody that a comparison shows.

    Where several rows answer the same question it stands in the first.
    """
    days = sorted({f"{comparison.measured:%Y-%m-%d}" for comparison in comparisons if comparison.measured})
    when = f" on {days[0]}" if len(days) == 1 else f" from {days[0]} to {days[-1]}" if days else ""
    where = f"on {on['cores']} cores ({on['architecture']}, {on['system']}), Python {on['python']}"
    lines = [
        f"Measured{when}, {where}. – is where there are too few samples for a p99, or means.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---" * len(HEADINGS) + "|",
    ]
    lines += ["| " + " | ".join(cells) + " |" for comparison in comparisons for cells in _rows(comparison)]
    return "\n".join(lines) + "\n"


def placed(readme: str, block: str) -> str:
    """The README with the block between its two markers. ValueError: it has not one of each, in this order."""
    before, opens, rest = readme.partition(OPENS)
    old, closes, after = rest.partition(CLOSES)
    if not (opens and closes) or OPENS in old + after or CLOSES in before + after:
        raise ValueError(f"the README has no block between one {OPENS} and one {CLOSES}")
    return f"{before}{OPENS}\n{block}{CLOSES}{after}"


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """The cells of each row."""
    what = comparison.what
    for timing in comparison.shown():
        verdicts = [verdict for verdict in comparison.verdicts() if verdict.subject.name == timing.name]
        for verdict in verdicts or (None,):
            yield what, *_cells(comparison, timing, verdict)
            what = ""


def _cells(comparison: Comparison, timing: Timing, verdict: Verdict | None) -> tuple[str, ...]:
    unit, beside = comparison.unit, verdict.beside if verdict else comparison.timings[0]
    target = f"{aim(verdict.target, unit).removesuffix(' than')}: {became(verdict)}" if verdict else ""
    ours, theirs = ((one.name, shown(one.p50, unit), shown(p99(one, unit), unit)) for one in (timing, beside))
    ratio = f"{timing.p50 / beside.p50:.2f} x"
    if verdict and verdict.target.by == "difference":
        ratio += f", {'+' * (verdict.figure >= 0)}{shown(verdict.figure, unit)}"
    return *ours, *theirs, ratio, target
