"""Comparisons as JSON, with every sample, and back again: what was measured is kept, joined with what was measured before, and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.bench.report import p99
from tests.bench.side_by_side import At, Comparison, Target, Timing


def document(comparisons: Sequence[Comparison], *, on: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, and on what kind of machine it was."""
    return {"machine": dict(on), "comparisons": [_comparison(comparison) for comparison in comparisons]}


def read(kept: Mapping[str, Any]) -> list[Comparison]:
    """The comparisons of a document. KeyError, TypeError, ValueError: it is none."""
    return [
        Comparison(
            one["what"],
            tuple(Timing(t["name"], t["calls"], tuple(t["samples"]), t["ratio"]) for t in one["timings"]),
            tuple(
                Target(target["name"], target["atMost"], by=target["by"], beside=target["beside"])
                for target in one["targets"]
            ),
            one["unit"],
            one["at"] and At(one["at"]["axis"], one["at"]["value"]),
            None if one["shows"] is None else tuple(one["shows"]),
            None if one["measured"] is None else datetime.fromisoformat(one["measured"]),
        )
        for one in kept["comparisons"]
    ]


def joined(before: Iterable[Comparison], after: Iterable[Comparison]) -> list[Comparison]:
    """Those of before, each in its place or replaced by the one of the same question, and then what is new."""
    return list(
        (
            {comparison.what: comparison for comparison in before}
            | {comparison.what: comparison for comparison in after}
        ).values()
    )


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "what": comparison.what,
        "measured": comparison.measured and comparison.measured.isoformat(timespec="seconds"),
        "unit": comparison.unit,
        "at": comparison.at and {"axis": comparison.at.axis, "value": comparison.at.value},
        "shows": comparison.shows,
        "targets": [
            {
                "name": verdict.subject.name,
                "beside": verdict.target.beside,
                "by": verdict.target.by,
                "atMost": verdict.target.at_most,
                "figure": verdict.figure,
                "met": verdict.met,
            }
            for verdict in comparison.verdicts()
        ],
        "timings": [
            {
                "name": timing.name,
                "calls": timing.calls,
                "p50": timing.p50,
                "p99": p99(timing, comparison.unit),
                "ratio": timing.ratio,
                "samples": timing.samples,
            }
            for timing in comparison.timings
        ],
    }
