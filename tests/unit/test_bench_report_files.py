"""What `make bench` writes for readers: the README's table and where it goes, and the plot."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.bench.report_plot import plot, title
from tests.bench.report_readme import CLOSES, OPENS, markdown, placed
from tests.bench.side_by_side import At, Comparison, Target, gathered

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def along(axis: str, value: float, *, unit: str = "s", names: tuple[str, ...] = ("floor", "ours")) -> Comparison:
    samples = {name: [number + value] for number, name in enumerate(names, 1)}
    return gathered(f"{axis} {value:g}", samples, unit=unit, at=At(axis, value))  # type: ignore[arg-type]


def test_the_readme_has_a_row_for_each_target_and_one_for_a_comparison_without() -> None:
    times = {"floor": [0.002], "ours": [0.003], "theirs": [0.012]}
    targets = [Target("ours", 2), Target("theirs", 0.001, by="difference"), Target("ours", 0.2, beside="theirs")]
    lines = markdown(
        [
            gathered("Sign", times, targets=targets),
            gathered("Memory", {"peer": [2048], "us": [1024], "empty": [1]}, unit="B"),
        ],
        at=AT,
    ).splitlines()
    assert lines[0].startswith("Measured on 2026-01-02, on ")
    assert lines[2:] == [
        "| what | ours | beside what | ratio | target |",
        "|---|---|---|---|---|",
        "| Sign | ours: 3.00 ms | floor: 2.00 ms | 1.50 x | at most 2 x: met |",
        "| Sign | theirs: 12.0 ms | floor: 2.00 ms | 6.00 x | at most 1.00 ms more: missed |",
        "| Sign | ours: 3.00 ms | theirs: 12.0 ms | 0.25 x | at most 0.2 x: missed |",
        "| Memory | us: 1.00 KiB | peer: 2.00 KiB | 0.50 x |  |",
    ]


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


def test_along_an_axis_the_readme_shows_both_ends_and_every_target() -> None:
    judged = gathered("callers 8", {"floor": [1.0], "ours": [2.0]}, at=At("callers", 8), targets=[Target("ours", 3)])
    family = [along("callers", 16), along("callers", 4), judged, along("callers", 1)]
    rows = [line.split(" | ")[0] for line in markdown(family, at=AT).splitlines()[4:]]
    assert rows == ["| callers 16", "| callers 8", "| callers 1"]


def test_a_family_is_called_by_the_words_that_its_members_share() -> None:
    assert title([along("with callers", 1), along("with callers", 16)]) == "with callers …"
    assert title([along("alone", 1)]) == "alone 1"


def test_the_plot_is_a_picture_of_everything_whatever_its_sign_and_number(tmp_path: Path) -> None:
    bars = gathered("Sign", {"floor": [2e-6], "ours": [3e-6]}, targets=[Target("ours", 2), Target("ours", 1)])
    less = gathered("less", {"floor": [-0.001], "ours": [0.001]}, at=At("latency", 0))
    hundred = gathered("p99", {"floor": [0.1] * 100}, at=At("latency", 1))
    plot([bars, less, hundred, along("callers", 1, unit="/s"), along("callers", 64, unit="/s")], tmp_path / "all.png")
    plot([gathered("alone", {"floor": [1.0]})], tmp_path / "one.png")
    for name in ("all.png", "one.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
