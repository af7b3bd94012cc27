"""The command behind `make bench`: what it measures, keeps and says, with measurements that take no time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from unittest import mock

import pytest

from tests.bench import __main__ as bench
from tests.bench.report_readme import CLOSES, OPENS
from tests.bench.side_by_side import Comparison, gathered


class Asked(list[tuple[str, object]]):
    """What was asked for, in its order."""

    def measuring(self, name: str, times: int = 1) -> Callable[[int], Comparison | Sequence[Comparison]]:
        def measure(rounds: int) -> Comparison | Sequence[Comparison]:
            self.append((name, rounds))
            print("a log line of the machine")  # noqa: T201 - it is what must not be seen
            made = [gathered(f"{name} {number}", {"x": [1.0]}) for number in range(times)]
            return made[0] if times == 1 else made

        return measure

    def writing(self, name: str) -> Callable[[Sequence[str]], None]:
        def write(arguments: Sequence[str]) -> None:
            self.append((name, list(arguments)))
            (Path(arguments[1]) / f"{name}.md").write_text(f"the {name} table\n")

        return write

    def failing(self, rounds: int) -> Comparison:
        raise RuntimeError("no server")


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked()
    comparisons = {"sign": (made.measuring("sign"), 9, 3), "warm": (made.measuring("warm", times=2), 8, 2)}
    sheets = {"refill": (made.writing("refill"), ()), "cost": (made.writing("cost"), ("--rate", "1"))}
    with mock.patch.multiple(bench, COMPARISONS=comparisons, SHEETS=sheets):
        yield made


def kept(folder: Path) -> list[str]:
    return [comparison["what"] for comparison in json.loads((folder / "bench.json").read_text())["comparisons"]]


def test_everything_is_measured_printed_and_kept(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    bench.main(["--out", str(out)])
    assert asked == [("sign", 9), ("warm", 8), ("refill", ["--out", str(out)]), ("cost", ["--out", str(out)])]
    assert kept(out) == ["sign 0", "warm 0", "warm 1"]
    assert {path.name for path in out.iterdir()} >= {"bench.json", "bench.md", "bench.png"}
    said = capsys.readouterr().out
    assert "warm 1" in said
    assert "a log line" not in said


def test_only_what_is_named_is_measured_and_quickly(asked: Asked, tmp_path: Path) -> None:
    bench.main(["--quick", "--only", "warm", "cost", "--out", str(tmp_path)])
    assert asked == [("warm", 2), ("cost", ["--out", str(tmp_path), "--rate", "1"])]


def test_what_breaks_down_is_told_by_name_once_all_the_others_are_kept(asked: Asked, tmp_path: Path) -> None:
    with (
        mock.patch.dict(bench.COMPARISONS, {"sign": (asked.failing, 9, 3)}),
        pytest.raises(ExceptionGroup) as raised,
    ):
        bench.main(["--out", str(tmp_path)])
    (failure,) = raised.value.exceptions
    assert str(failure) == "no server"
    assert failure.__notes__ == ["in the measurement 'sign'"]
    assert kept(tmp_path) == ["warm 0", "warm 1"]
    assert asked[-1][0] == "cost"


def test_the_readme_gets_both_tables(asked: Asked, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before {OPENS} {CLOSES} after")
    with mock.patch.object(bench, "README", readme):
        bench.main(["--readme", "--out", str(tmp_path)])
    text = readme.read_text()
    assert "| sign 0 | x | 1.00 s |" in text
    assert text.index("| warm 1 |") < text.index("the cost table") < text.index(CLOSES)


@pytest.mark.parametrize("less", [["--quick"], ["--only", "sign"]])
@pytest.mark.parametrize("what", [["--readme"], ["--from", "bench.json"]])
def test_the_readme_gets_nothing_less_than_a_whole_run_and_what_was_measured_is_reported_whole(
    asked: Asked, what: list[str], less: list[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main([*what, *less])
    assert asked == []


def test_what_breaks_down_in_a_sheet_is_told_beside_the_others(asked: Asked, tmp_path: Path) -> None:
    broken = {"refill": (asked.failing, ())}
    with (
        mock.patch.dict(bench.COMPARISONS, {"sign": (asked.failing, 9, 3)}),
        mock.patch.dict(bench.SHEETS, broken),
        pytest.raises(ExceptionGroup) as raised,
    ):
        bench.main(["--out", str(tmp_path)])
    notes = [failure.__notes__ for failure in raised.value.exceptions]
    assert notes == [["in the measurement 'sign'"], ["in the measurement 'refill'"]]
    assert asked[-1][0] == "cost"


def test_what_was_measured_before_an_interrupt_is_kept_and_so_is_the_last_run(asked: Asked, tmp_path: Path) -> None:
    bench.main(["--only", "warm", "--out", str(tmp_path)])
    with (
        mock.patch.dict(bench.COMPARISONS, {"warm": (mock.Mock(side_effect=KeyboardInterrupt), 8, 2)}),
        pytest.raises(KeyboardInterrupt),
    ):
        bench.main(["--out", str(tmp_path)])
    assert kept(tmp_path) == ["warm 0", "warm 1", "sign 0"]


def test_what_is_measured_alone_replaces_itself_and_leaves_the_others(asked: Asked, tmp_path: Path) -> None:
    bench.main(["--out", str(tmp_path)])
    before = json.loads((tmp_path / "bench.json").read_text())["comparisons"]
    with mock.patch.dict(bench.COMPARISONS, {"sign": (lambda _: gathered("sign 0", {"x": [7.0]}), 9, 3)}):
        bench.main(["--only", "sign", "--out", str(tmp_path)])
    after = json.loads((tmp_path / "bench.json").read_text())["comparisons"]
    assert after[0]["timings"][0]["samples"] == [7.0]
    assert after[1:] == before[1:]
    assert "| warm 1 |" in (tmp_path / "bench.md").read_text()
    assert all(datetime.fromisoformat(comparison["measured"]).tzinfo for comparison in after)


def test_a_whole_run_forgets_what_is_no_longer_measured(asked: Asked, tmp_path: Path) -> None:
    bench.main(["--out", str(tmp_path)])
    del bench.COMPARISONS["sign"]
    bench.main(["--out", str(tmp_path)])
    assert kept(tmp_path) == ["warm 0", "warm 1"]


def test_figures_of_two_machines_are_not_joined(asked: Asked, tmp_path: Path) -> None:
    bench.main(["--out", str(tmp_path)])
    before = (tmp_path / "bench.json").read_text().replace('"cores": ', '"cores": 9')
    (tmp_path / "bench.json").write_text(before)
    asked.clear()
    with pytest.raises(SystemExit):
        bench.main(["--only", "sign", "--out", str(tmp_path)])
    assert asked == []
    assert (tmp_path / "bench.json").read_text() == before


def test_two_comparisons_by_one_name_are_a_failure_rather_than_one(asked: Asked, tmp_path: Path) -> None:
    with (
        mock.patch.dict(bench.COMPARISONS, {"again": (lambda _: gathered("sign 0", {"x": [1.0]}), 1, 1)}),
        pytest.raises(ExceptionGroup) as raised,
    ):
        bench.main(["--out", str(tmp_path)])
    assert [str(failure) for failure in raised.value.exceptions] == ["'sign 0' was measured twice"]


def test_a_quick_run_leaves_the_folder_of_whole_runs_alone(asked: Asked, tmp_path: Path) -> None:
    with mock.patch.object(bench, "OUT", tmp_path):
        bench.main(["--quick"])
    assert kept(tmp_path / "quick") == ["sign 0", "warm 0", "warm 1"]
    assert not (tmp_path / "bench.json").exists()


def test_what_was_measured_is_reported_again_without_measuring(
    asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.main(["--out", str(tmp_path)])
    before = {name: (tmp_path / name).read_text() for name in ("bench.json", "bench.md")}
    (tmp_path / "bench.md").unlink()
    (tmp_path / "bench.png").unlink()
    asked.clear()
    capsys.readouterr()
    bench.main(["--from", str(tmp_path / "bench.json")])
    assert asked == []
    assert {name: (tmp_path / name).read_text() for name in before} == before
    assert (tmp_path / "bench.png").exists()
    assert "warm 1" in capsys.readouterr().out


def test_a_readme_without_a_place_for_the_tables_is_told_before_anything_is_measured(
    asked: Asked, tmp_path: Path
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no markers")
    with mock.patch.object(bench, "README", readme), pytest.raises(ValueError, match="no block"):
        bench.main(["--readme", "--out", str(tmp_path)])
    assert asked == []


@pytest.mark.parametrize("text", ["", "{}", '{"machine": {}, "comparisons": [{"what": "of long ago"}]}', "[]"])
def test_what_cannot_be_read_is_told_before_anything_is_measured_and_left_alone(
    asked: Asked, tmp_path: Path, text: str
) -> None:
    (tmp_path / "bench.json").write_text(text)
    with pytest.raises(SystemExit):
        bench.main(["--out", str(tmp_path)])
    assert asked == []
    assert (tmp_path / "bench.json").read_text() == text
