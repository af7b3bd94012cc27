"""The arithmetic of `make bench`: what is timed, in which order, and what becomes of the figures. No figure of a machine is judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from tests.bench import micro
from tests.bench.side_by_side import (
    Comparison,
    Contestant,
    Timing,
    compare,
    document,
    rows,
    shown_seconds,
    table,
)
from tests.fakes import Clock


def taking(clock: Clock, seconds: Iterable[float]) -> Callable[[], None]:
    """Something that takes the first of the times when it is first called, the second then, and so on."""
    times = iter(seconds)
    return lambda: clock.sleep(next(times))


def timing(*samples: float, calls: int = 1, ratio: float = 1.0) -> Timing:
    return Timing("x", calls, samples, ratio)


def test_a_ratio_is_one_median_over_the_other() -> None:
    clock = Clock(0)
    floor = Contestant("floor", taking(clock, [2, 100, 4]))
    slower = Contestant("slower", taking(clock, [6, 5, 1000]))
    timings = compare("x", [floor, slower], rounds=3, warm_up=0, clock=clock).timings
    assert [(t.name, t.p50_seconds, t.ratio) for t in timings] == [("floor", 4, 1), ("slower", 6, 1.5)]


def test_what_warms_up_does_not_count() -> None:
    clock = Clock(0)
    (only,) = compare("x", [Contestant("a", taking(clock, [9, 9, 1, 1]))], rounds=2, warm_up=2, clock=clock).timings
    assert only.samples == (1, 1)


def test_everybody_runs_once_a_round_and_takes_turns_in_being_the_first() -> None:
    clock, order = Clock(0), list[str]()

    def contestant(name: str) -> Contestant:
        def run() -> None:
            order.append(name)
            clock.sleep(1)

        return Contestant(name, run)

    compare("x", [contestant(name) for name in "abc"], rounds=3, warm_up=1, clock=clock)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"


def test_a_sample_of_many_calls_is_their_mean() -> None:
    clock = Clock(0)
    assert Contestant("a", taking(clock, [1, 2, 6]), calls=3).sample(clock) == 3


def test_preparing_is_not_timed() -> None:
    clock = Clock(0)
    prepared = Contestant("a", taking(clock, [1, 1]), calls=2, prepare=lambda: clock.sleep(50))
    assert prepared.sample(clock) == 1


def test_of_a_hundred_samples_one_may_be_worse_than_the_p99() -> None:
    assert timing(*reversed(range(1, 101))).p99_seconds == 99


@pytest.mark.parametrize(
    "without", [timing(*range(1, 100)), timing(*range(1, 201), calls=10)], ids=["too few samples", "samples are means"]
)
def test_where_a_p99_would_say_nothing_there_is_none(without: Timing) -> None:
    assert without.p99_seconds is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (12.34, "12.3 s"),
        (1.0, "1.00 s"),
        (0.1234, "123 ms"),
        (0.001234, "1.23 ms"),
        (0.0000123, "12.3 µs"),
        (0.000000123, "123 ns"),
    ],
)
def test_seconds_are_shown_by_three_digits_and_a_unit(seconds: float | None, shown: str) -> None:
    assert shown_seconds(seconds) == shown


def test_a_row_says_what_how_many_how_long_and_how_much_slower() -> None:
    slow = timing(*[0.002] * 100, ratio=2.5)
    quick = timing(0.000004, calls=1000, ratio=1)
    assert rows(Comparison("what", "", (slow, quick))) == [
        ("x", "100", "2.00 ms", "2.00 ms", "2.50 x"),
        ("x", "1 of 1000", "4.00 µs", "–", "1.00 x"),
    ]


def test_the_table_has_a_row_for_each_and_the_target_below() -> None:
    shown = table(Comparison("what", "at most 2 x", (timing(1.0), timing(2.0))))
    assert (shown.title, shown.caption, shown.row_count) == ("what", "at most 2 x", 2)
    assert len(shown.columns) == len(rows(Comparison("what", "", (timing(1.0),)))[0])


def test_the_document_is_json_with_every_sample() -> None:
    comparison = Comparison("what", "at most 2 x", (timing(1.0, 3.0, ratio=1.0), timing(4.0, calls=7, ratio=2.0)))
    made = json.loads(json.dumps(document([comparison], at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))))
    assert made["at"] == "2026-01-02T03:04:05+00:00"
    assert made["machine"].keys() == {"cores", "architecture", "system", "python"}
    assert made["comparisons"] == [
        {
            "what": "what",
            "target": "at most 2 x",
            "timings": [
                {"name": "x", "calls": 1, "p50Seconds": 2.0, "p99Seconds": None, "ratio": 1.0, "samples": [1.0, 3.0]},
                {"name": "x", "calls": 7, "p50Seconds": 4.0, "p99Seconds": None, "ratio": 2.0, "samples": [4.0]},
            ],
        }
    ]


def test_the_command_measures_what_it_is_told_to_prints_it_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int]] = []

    def measuring(name: str) -> Callable[[int], Comparison]:
        def measure(rounds: int) -> Comparison:
            asked.append((name, rounds))
            print("a log line of the machine")  # noqa: T201 - it is what must not be seen
            return Comparison(name, "", (timing(1.0),))

        return measure

    with mock.patch.dict(micro.COMPARISONS, {"sign": (measuring("sign"), 9, 3), "claim": (measuring("claim"), 8, 2)}):
        micro.main(["--quick", "--only", "claim", "sign", "--out", str(tmp_path / "new")])
    assert asked == [("claim", 2), ("sign", 3)]
    kept = json.loads((tmp_path / "new/micro.json").read_text())
    assert [comparison["what"] for comparison in kept["comparisons"]] == ["claim", "sign"]
    shown = capsys.readouterr().out
    assert "1.00 x" in shown
    assert "a log line" not in shown
