"""What `make bench` shows and keeps: units, targets in words, rows, and the document."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.bench.report import machine, rows, said, shown, table, words
from tests.bench.report_json import document, joined, read
from tests.bench.side_by_side import At, Comparison, Target, Timing, Unit, gathered


def timing(*samples: float, calls: int = 1, ratio: float = 1.0) -> Timing:
    return Timing("x", calls, samples, ratio)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "–"),
        (12.34, "s", "12.3 s"),
        (1.0, "s", "1.00 s"),
        (0.1234, "s", "123 ms"),
        (0.001234, "s", "1.23 ms"),
        (-0.001234, "s", "-1.23 ms"),
        (0.0000123, "s", "12.3 µs"),
        (0.000000123, "s", "123 ns"),
        (0, "s", "0.00 ns"),
        (7.891, "/s", "7.89 /s"),
        (12345.6, "/s", "12,346 /s"),
        (0.5, "/s", "0.50 /s"),
        (71 * 2**20, "B", "71.0 MiB"),
        (1500, "B", "1.46 KiB"),
    ],
)
def test_figures_are_shown_by_three_digits_and_a_unit(value: float | None, unit: Unit, text: str) -> None:
    assert shown(value, unit) == text


@pytest.mark.parametrize(
    ("target", "target_words", "verdict"),
    [
        (Target("ours", 2), "ours at most 2 x", "1.50 x: met"),
        (Target("ours", 0.6, beside="theirs"), "ours at most 0.6 x theirs", "0.75 x: missed"),
        (Target("ours", 0.002, by="difference"), "ours at most 2.00 ms more", "1.00 ms more: met"),
        (
            Target("ours", 0.0, by="difference", beside="floor"),
            "ours at most 0.00 ns more than floor",
            "1.00 ms more: missed",
        ),
    ],
)
def test_a_target_and_its_verdict_are_words(target: Target, target_words: str, verdict: str) -> None:
    comparison = gathered("x", {"floor": [0.002], "ours": [0.003], "theirs": [0.004]}, targets=[target])
    assert words(target) == target_words
    assert said(comparison.verdicts()[0]) == verdict


def test_a_row_says_what_how_many_how_long_and_how_much_slower() -> None:
    slow = timing(*[0.002] * 100, ratio=2.5)
    quick = timing(0.000004, calls=1000, ratio=1)
    assert rows(Comparison("what", (slow, quick))) == [
        ("x", "100", "2.00 ms", "2.00 ms", "2.50 x"),
        ("x", "1 of 1000", "4.00 µs", "–", "1.00 x"),
    ]


def test_of_rates_there_is_no_p99() -> None:
    comparison = Comparison("what", (timing(*[20.0] * 100),), unit="/s")
    assert rows(comparison) == [("x", "100", "20.0 /s", "–", "1.00 x")]
    assert document([comparison], on={})["comparisons"][0]["timings"][0]["p99"] is None


def test_the_table_has_a_row_for_each_and_the_targets_below() -> None:
    two = timing(1.0), Timing("y", 1, (1.0,), 1.0)
    made = table(Comparison("what", two, (Target("y", 2), Target("y", 0.5))))
    assert (made.title, made.row_count) == ("what", 2)
    assert made.caption == "target: y at most 2 x – 1.00 x: met\ntarget: y at most 0.5 x – 1.00 x: missed"
    assert len(made.columns) == len(rows(Comparison("what", (timing(1.0),)))[0])
    assert table(Comparison("what", (timing(1.0),))).caption is None


MEASURED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIMINGS = timing(1.0, 3.0, ratio=1.0), Timing("y", 7, (4.0,), 2.0)


def test_the_document_is_json_with_every_sample() -> None:
    comparison = Comparison("what", TIMINGS, (Target("y", 1.5),), "B", At("callers", 4), ("y",), MEASURED)
    made = json.loads(json.dumps(document([comparison], on=machine())))
    assert made["machine"].keys() == {"cores", "architecture", "system", "python"}
    assert made["comparisons"] == [
        {
            "what": "what",
            "measured": "2026-01-02T03:04:05+00:00",
            "unit": "B",
            "at": {"axis": "callers", "value": 4},
            "shows": ["y"],
            "targets": [{"name": "y", "beside": None, "by": "ratio", "atMost": 1.5, "figure": 2.0, "met": False}],
            "timings": [
                {"name": "x", "calls": 1, "p50": 2.0, "p99": None, "ratio": 1.0, "samples": [1.0, 3.0]},
                {"name": "y", "calls": 7, "p50": 4.0, "p99": None, "ratio": 2.0, "samples": [4.0]},
            ],
        }
    ]


@pytest.mark.parametrize(
    "comparison",
    [
        Comparison("bare", TIMINGS),
        Comparison("nobody", TIMINGS, shows=()),
        Comparison("what", TIMINGS, (Target("y", 2, by="difference", beside="x"),), "B", At("at", 4), ("y",), MEASURED),
    ],
    ids=lambda comparison: comparison.what,
)
def test_what_is_read_from_a_document_is_what_was_put_into_it(comparison: Comparison) -> None:
    assert read(json.loads(json.dumps(document([comparison], on={})))) == [comparison]


def test_what_is_measured_again_takes_the_place_of_what_was_there() -> None:
    old, again, kept, new = (Comparison(what, (timing(value),)) for what, value in zip("aabc", range(4), strict=True))
    assert joined([old, kept], [new, again]) == [again, kept, new]
