"""`make bench` still starts what it measures: one round of each, on a build laid out here, and no figure is judged."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.stack import PROJECT
from tests.bench import cold_start
from tests.bench.cold_start_place import NotBuilt, Place, application, check, functions
from tests.bench.side_by_side import Timing
from tests.processes import descendants

FUNCTIONS = {"VendFunction", "ApiFunction", "AccessReportFunction", "RefillFunction", "ProbeFunction", "RotateFunction"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The sources where `sam build` would have put them; the packages are those of our own interpreter."""
    for name in application().functions:
        (tmp_path / name).mkdir()
        for package in ("handlers", "vending"):
            (tmp_path / name / package).symlink_to(PROJECT / "functions" / package)
    made = Place(tmp_path, Path(sys.executable))
    made.layer.mkdir(parents=True)
    (made.layer / "imburse_auth").symlink_to(PROJECT / "layers/imburse_auth/src/imburse_auth")
    return made


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = set(descendants(os.getpid()))
    yield
    assert set(descendants(os.getpid())) <= before


def test_every_function_and_every_peer_gets_ready(place: Place) -> None:
    measured = cold_start.ready(1, place)
    assert measured.timings[0].name == "boto3, requests, Logger and Metrics"
    assert {timing.name for timing in measured.timings} == FUNCTIONS | set(cold_start.NAMES.values())
    assert all(timing.p50 > 0 for timing in measured.timings)


def test_the_functions_and_the_tutorial_give_a_first_token(place: Place) -> None:
    timings: list[Timing] = list(cold_start.first_token(1, place).timings)
    assert [timing.name for timing in timings] == [
        "the tutorial's vend",
        "the tutorial's vend, compiled",
        "VendFunction",
        "ApiFunction",
    ]


def test_a_function_that_does_not_start_ends_the_measurement_and_says_why(place: Place) -> None:
    (place.build / "VendFunction/handlers").unlink()
    (place.build / "VendFunction/handlers").mkdir()
    (place.build / "VendFunction/handlers/__init__.py").touch()
    (place.build / "VendFunction/handlers/vend.py").write_text("raise ValueError('VENDING_TABLE: must be set')\n")
    with pytest.raises(RuntimeError, match=r"VENDING_TABLE: must be set"):
        cold_start.first_token(1, place)


def test_what_the_imports_cost_is_told_by_package(place: Place, tmp_path: Path) -> None:
    found = cold_start.imports(functions(place, application().functions, {})["VendFunction"], place, tmp_path)
    seconds, modules = found["vending"]
    assert seconds > 0
    assert modules > 10
    assert list(found.values()) == sorted(found.values(), key=lambda cost: cost[0], reverse=True)


def test_without_a_build_for_this_machine_the_command_that_makes_one_is_named(place: Place, tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match=r"VendFunction.*: not built; make build ARCHITECTURE="):
        check(tmp_path / "nothing")
    package = place.build / "VendFunction/cedarpy-1.dist-info"
    package.mkdir()
    (package / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp313-cp313-manylinux_2_17_pdp11\n")
    with pytest.raises(NotBuilt, match="another processor"):
        check(place.build)
