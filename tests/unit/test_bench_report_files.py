"""What `make bench` writes for readers: the README's table and where it goes, and the plot."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.bench.report_plot import plot, title, told, used
from tests.bench.report_readme import CLOSES, OPENS, markdown, placed
from tests.bench.side_by_side import At, Comparison, Target, gathered

MACHINE = {"cores": 2, "architecture": "arm64", "system": "Linux", "python": "3.13.0"}


def along(axis: str, value: float, *, unit: str = "s", names: tuple[str, ...] = ("floor", "ours")) -> Comparison:
    samples = {name: [number + value] for number, name in enumerate(names, 1)}
    return gathered(f"{axis}, {value:g} of them", samples, unit=unit, at=At(axis, value))  # type: ignore[arg-type]


def on(day: int, what: str = "Sign") -> Comparison:
    return dataclasses.replace(gathered(what, {"x": [1.0]}), measured=datetime(2026, 1, day, tzinfo=UTC))


def test_the_readme_has_a_row_for_everybody_that_is_shown() -> None:
    times = {"floor": [0.002], "ours": [0.003], "theirs": [0.012]}
    targets = [Target("ours", 2), Target("theirs", 0.001, by="difference"), Target("ours", 0.2, beside="theirs")]
    lines = markdown(
        [
            gathered("Sign", times, targets=targets),
            gathered("Memory", {"peer": [2048], "empty": [1], "us": [1024]}, unit="B"),
            gathered("Claim", {"floor": [0.001] * 100, "ours": [0.002] * 100, "last": [1]}, shows=["ours"]),
            gathered("Nobody", {"floor": [1]}, shows=[]),
        ],
        on=MACHINE,
    ).splitlines()
    assert lines[2:] == [
        "| what | measured | p50 | p99 | beside | its p50 | its p99 | ratio | target |",
        "|---|---|---|---|---|---|---|---|---|",
        "| Sign | ours | 3.00 ms | – | floor | 2.00 ms | – | 1.50 x | at most 2 x: met |",
        "|  | ours | 3.00 ms | – | theirs | 12.0 ms | – | 0.25 x | at most 0.2 x: missed |",
        "|  | theirs | 12.0 ms | – | floor | 2.00 ms | – | 6.00 x, +10.0 ms | at most 1.00 ms more: missed |",
        "| Memory | us | 1.00 KiB | – | peer | 2.00 KiB | – | 0.50 x |  |",
        "| Claim | ours | 2.00 ms | 2.00 ms | floor | 1.00 ms | 1.00 ms | 2.00 x |  |",
    ]


def test_the_readme_says_on_which_days_and_on_what_machine_it_was_measured() -> None:
    where = "on 2 cores (arm64, Linux), Python 3.13.0."
    assert markdown([on(2), on(2)], on=MACHINE).startswith(f"Measured on 2026-01-02, {where}")
    assert markdown([on(3), on(2)], on=MACHINE).startswith(f"Measured from 2026-01-02 to 2026-01-03, {where}")
    assert markdown([], on=MACHINE).startswith(f"Measured, {where}")


def test_the_block_takes_the_place_of_what_stood_between_the_markers() -> None:
    readme = f"before\n{OPENS}\nold\n{CLOSES}\nafter\n"
    once = placed(readme, "new\n")
    assert once == f"before\n{OPENS}\nnew\n{CLOSES}\nafter\n"
    assert placed(once, "new\n") == once


@pytest.mark.parametrize(
    "readme", ["", OPENS, CLOSES, f"{CLOSES}{OPENS}", f"{OPENS}{OPENS}{CLOSES}", f"{OPENS}{CLOSES}{CLOSES}"]
)
def test_a_readme_without_one_pair_of_markers_is_left_alone(readme: str) -> None:
    with pytest.raises(ValueError, match="no block"):
        placed(readme, "new\n")


def test_a_family_is_called_by_what_its_members_begin_with() -> None:
    assert title([along("vends, by callers", 1), along("vends, by callers", 16)]) == "vends, by callers"
    assert title([along("alone", 1)]) == "alone, 1 of them"
    assert title([gathered("warm", {"x": [1.0]}), gathered("cold", {"x": [1.0]})]) == "warm"


def test_a_target_is_told_with_how_much_of_it_is_used_up_and_nothing_is_used_up_below_the_floor() -> None:
    targets = [Target("ours", 2), Target("quick", 2, by="difference")]
    comparison = gathered("Sign", {"floor": [4.0], "ours": [6.0], "quick": [1.0]}, targets=targets)
    half, below = comparison.verdicts()
    assert (used(half), told(comparison, half)) == (0.75, "Sign: ours at most 2 x: 75% of it")
    assert (used(below), told(comparison, below)) == (0, "Sign: quick at most 2.00 s more: below floor")


def test_the_plot_is_a_picture_of_everything_whatever_its_sign_and_number(tmp_path: Path) -> None:
    bars = gathered("Sign", {"floor": [2e-6], "ours": [3e-6]}, targets=[Target("ours", 2), Target("ours", 1)])
    less = gathered("less", {"floor": [-0.001], "ours": [0.001]}, at=At("latency", 0), targets=[Target("ours", 2)])
    hundred = gathered("p99", {"floor": [0.1] * 100}, at=At("latency", 1))
    fast, slow = along("ms", 1), along("ms", 300, names=("floor", "ours", "theirs"))
    plot(
        [bars, less, hundred, fast, slow, along("callers", 1, unit="/s"), along("callers", 64, unit="/s")],
        tmp_path / "all.png",
    )
    plot([gathered("alone", {"floor": [1.0]})], tmp_path / "one.png")
    for name in ("all.png", "one.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
