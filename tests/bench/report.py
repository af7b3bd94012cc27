"""Comparisons as a reader sees them: figures with units, targets in words, and tables for a terminal."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from os import cpu_count
from typing import Any

from rich.table import Table

from tests.bench.side_by_side import Comparison, Target, Timing, Unit, Verdict

# From the largest: the unit's name and its size in seconds, in how many a second, in bytes.
SCALES: Mapping[Unit, Sequence[tuple[str, float]]] = {
    "s": (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)),
    "/s": (("/s", 1.0),),
    "B": (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)),
}


def shown(value: float | None, unit: Unit = "s") -> str:
    """At least three digits, and a unit: `1.23 ms`."""
    if value is None:
        return "–"
    name, size = next((scale for scale in SCALES[unit] if abs(value) >= scale[1]), SCALES[unit][-1])
    scaled = value / size
    digits = max(0, 2 - int(math.log10(abs(scaled)))) if abs(scaled) >= 1 else 2
    return f"{scaled:,.{digits}f} {name}"


def words(target: Target, unit: Unit = "s") -> str:
    """The target for a reader: `claim at most 2 x`."""
    return f"{target.name} {aim(target, unit)}" + (f" {target.beside}" if target.beside else "")


def aim(target: Target, unit: Unit = "s") -> str:
    """How much it may be, without whose: `at most 2 x`."""
    if target.by == "ratio":
        return f"at most {target.at_most:g} x"
    return f"at most {shown(target.at_most, unit)} more" + (" than" if target.beside else "")


def became(verdict: Verdict) -> str:
    """What became of the target."""
    return "met" if verdict.met else "missed"


def said(verdict: Verdict, unit: Unit = "s") -> str:
    """The figure and what became of the target: `1.85 x: met`."""
    figure = f"{verdict.figure:.2f} x" if verdict.target.by == "ratio" else f"{shown(verdict.figure, unit)} more"
    return f"{figure}: {became(verdict)}"


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The comparison as the cells of a table: what, samples, p50, p99, ratio."""
    return [
        (
            timing.name,
            f"{len(timing.samples)}" + (f" of {timing.calls}" if timing.calls > 1 else ""),
            shown(timing.p50, comparison.unit),
            shown(p99(timing, comparison.unit), comparison.unit),
            f"{timing.ratio:.2f} x",
        )
        for timing in comparison.timings
    ]


def p99(timing: Timing, unit: Unit) -> float | None:
    """None of rates: the bad ones are the small ones there."""
    return None if unit == "/s" else timing.p99


def table(comparison: Comparison) -> Table:
    """The comparison for a terminal, its targets below it."""
    unit = comparison.unit
    targets = [f"target: {words(verdict.target, unit)} – {said(verdict, unit)}" for verdict in comparison.verdicts()]
    made = Table(
        title=comparison.what, title_justify="left", caption="\n".join(targets) or None, caption_justify="left"
    )
    made.add_column("", min_width=44)
    for heading in ("samples", "p50", "p99", "beside the first"):
        made.add_column(heading, justify="right")
    for cells in rows(comparison):
        made.add_row(*cells)
    return made


def machine() -> dict[str, Any]:
    """On what kind of machine this is, by no name of its own."""
    return {
        "cores": cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
