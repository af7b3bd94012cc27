"""The arithmetic of `make bench`: what is timed, in which order, and what is held against what. No figure of a machine is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tests.bench.side_by_side import At, Comparison, Contestant, Target, Timing, Unit, by_axis, compare, gathered
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
    assert [(t.name, t.p50, t.ratio) for t in timings] == [("floor", 4, 1), ("slower", 6, 1.5)]


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
    assert timing(*reversed(range(1, 101))).p99 == 99


@pytest.mark.parametrize(
    "without", [timing(*range(1, 100)), timing(*range(1, 201), calls=10)], ids=["too few samples", "samples are means"]
)
def test_where_a_p99_would_say_nothing_there_is_none(without: Timing) -> None:
    assert without.p99 is None


def test_samples_taken_elsewhere_are_held_against_the_first_name() -> None:
    made = gathered("memory", {"floor": [2, 4, 3], "ours": [6.0], "theirs": [9, 12]}, unit="B", at=At("callers", 4))
    assert [(t.name, t.p50, t.ratio, t.calls) for t in made.timings] == [
        ("floor", 3, 1, 1),
        ("ours", 6, 2, 1),
        ("theirs", 10.5, 3.5, 1),
    ]
    assert (made.what, made.unit, made.at, made.targets) == ("memory", "B", At("callers", 4), ())


def test_what_is_compared_keeps_its_targets_and_its_place() -> None:
    clock, target, at = Clock(0), Target("b", 2), At("latency", 100)
    contestants = [Contestant(name, taking(clock, [1])) for name in "ab"]
    made = compare("x", contestants, rounds=1, warm_up=0, targets=[target], at=at, clock=clock)
    assert (made.targets, made.at, made.unit) == ((target,), at, "s")


@pytest.mark.parametrize(
    ("target", "figure", "met"),
    [
        (Target("ours", 2), 2, True),
        (Target("ours", 1.99), 2, False),
        (Target("ours", 0.5, beside="theirs"), 0.4, True),
        (Target("ours", 4, by="difference"), 4, True),
        (Target("ours", 3.99, by="difference"), 4, False),
        (Target("ours", -12, by="difference", beside="theirs"), -12, True),
    ],
)
def test_a_target_is_met_at_its_figure_and_missed_above_it(target: Target, figure: float, met: bool) -> None:
    (verdict,) = gathered("x", {"floor": [4], "ours": [8], "theirs": [20]}, targets=[target]).verdicts()
    assert (verdict.figure, verdict.met) == (figure, met)
    assert (verdict.subject.name, verdict.beside.name) == ("ours", target.beside or "floor")


@pytest.mark.parametrize("target", [Target("x", 2), Target("ours", 2, beside="x")])
def test_a_target_for_nobody_is_an_error_where_it_is_set(target: Target) -> None:
    with pytest.raises(KeyError):
        gathered("what", {"ours": [8]}, targets=[target])


def along(axis: str, value: float, *, unit: Unit = "s", names: tuple[str, ...] = ("floor", "ours")) -> Comparison:
    return gathered(f"{axis} {value:g}", {name: [1.0] for name in names}, unit=unit, at=At(axis, value))


def test_what_compares_the_same_along_an_axis_is_one_panel_in_the_axis_order() -> None:
    late, early = along("callers", 16), along("callers", 1)
    memory = along("callers", 1, unit="B")
    others = along("callers", 4, names=("theirs", "ours"))
    alone = gathered("alone", {"floor": [1.0]})
    assert by_axis([late, memory, alone, others, early]) == [[early, late], [memory], [others]]


def test_somebody_who_is_only_at_one_place_of_an_axis_makes_no_panel_of_its_own() -> None:
    alone, both = along("latency", 0, names=("floor", "ours", "empty")), along("latency", 100)
    assert by_axis([alone, both]) == [[alone, both]]


@pytest.mark.parametrize(
    ("shows", "targets", "names"),
    [
        (None, [], ["empty"]),
        (None, [Target("ours", 2)], ["ours"]),
        (["theirs", "ours"], [], ["ours", "theirs"]),
        (["theirs"], [Target("ours", 2)], ["ours", "theirs"]),
        ([], [], []),
    ],
)
def test_the_last_is_shown_or_whoever_has_a_target_or_was_named(
    shows: list[str] | None, targets: list[Target], names: list[str]
) -> None:
    samples = {name: [1.0] for name in ("floor", "ours", "theirs", "empty")}
    clock = Clock(0)
    contestants = [Contestant(name, taking(clock, [1])) for name in samples]
    compared = compare("x", contestants, rounds=1, warm_up=0, targets=targets, shows=shows, clock=clock)
    for made in (gathered("x", samples, targets=targets, shows=shows), compared):
        assert [timing.name for timing in made.shown()] == names


def test_to_show_nobody_that_there_is_is_an_error() -> None:
    with pytest.raises(KeyError, match="theirs"):
        gathered("x", {"ours": [1.0]}, shows=["theirs"])
