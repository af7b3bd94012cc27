"""The cost sheet counts what the machine does: a few vends on the clock of five minutes, and every figure can be told beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench import cost
from tests.bench.cost_count import Counted, Door, Load, Mode, counting

Count = Callable[[Mode, Door, Load], Counted]
LOAD = Load(vends_per_second=0.1, environments=1, token_characters=300)  # every ten seconds one: thirty of them


@pytest.fixture(scope="module")
def count() -> Iterator[Count]:
    with counting() as made:
        yield made


def test_in_line_a_vend_is_an_exchange_and_a_look_at_the_brake(count: Count) -> None:
    counted = count("in line", "direct", LOAD)
    calls = {meter: n for meter, n in counted.vends.items() if meter.startswith("call")}
    assert calls == {"call dynamodb.Query": 30, "call secrets-manager.GetSecretValue": 1}
    assert counted.vends["read brake"] == 30
    assert counted.vends["exchange"] == 30
    assert not any(meter.startswith("write") for meter in counted.vends)
    assert counted.refill_runs == 0


def test_from_the_pool_each_token_is_put_and_deleted_once_and_the_refill_makes_up_for_it(count: Count) -> None:
    counted = count("pool", "direct", LOAD)
    assert "exchange" not in counted.vends
    assert counted.vends["call dynamodb.DeleteItem"] == 30
    assert counted.vends["write pool"] == 30  # an item of less than a KiB
    assert counted.refill_runs == 5
    assert counted.refills["exchange"] == counted.refills["write pool"] == 30
    assert counted.vends["write demand"] == counted.vends["write level"] == 30  # each more than a second after the last
    assert ("PoolHit", "credential=sandbox/tenant-a", "service=vend") in counted.metrics


def test_a_token_of_more_than_a_kib_costs_two_units_to_write_and_two_to_delete(count: Count) -> None:
    counted = count("pool", "direct", Load(0.1, 1, 1100))
    assert (counted.vends["write pool"], counted.refills["write pool"]) == (60, 60)


def test_shared_a_vend_is_a_look_at_the_table(count: Count) -> None:
    counted = count("shared", "direct", LOAD)
    calls = {meter: n for meter, n in counted.vends.items() if meter.startswith("call")}
    assert calls == {
        "call dynamodb.GetItem": 30,
        "call dynamodb.Query": 30,
        "call secrets-manager.GetSecretValue": 1,
    }


def test_the_api_door_costs_the_same_calls_and_has_a_longer_record(count: Count) -> None:
    direct, api = count("in line", "direct", LOAD), count("in line", "API", LOAD)
    for meter in ("call dynamodb.Query", "read brake", "exchange", "sent"):
        assert api.vends[meter] == direct.vends[meter]
    assert api.vends["log audit"] > direct.vends["log audit"]


def test_what_is_kept_for_five_seconds_is_not_read_each_vend(count: Count) -> None:
    counted = count("shared", "direct", Load(1, 1, 300))
    assert counted.load.vends == 300
    assert counted.vends["read brake"] == pytest.approx(60, abs=1)
    assert counted.vends["read shared"] == pytest.approx(60, abs=1)


def test_bytes_are_those_of_the_requests_without_what_asks_for_units(count: Count) -> None:
    counted = count("in line", "direct", LOAD)
    a_request, an_answer = counted.vends["sent"] / 31, counted.vends["received"] / 31
    assert 600 < a_request < 1500
    assert 200 < an_answer < 1000


def test_the_command_prints_and_keeps_the_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"prices": {"api_million_requests": 1000}}')
    cost.main(["--out", str(tmp_path), "--rate", "0.02", "--environments", "1", "--prices", str(prices)])
    kept = json.loads((tmp_path / "cost.json").read_text())
    assert [vend["dollarsPerMillion"] > 1000 for vend in kept["vends"]] == [False, True] * 3
    assert (tmp_path / "cost.md").read_text().count("\n|") == 8
    assert "$1000 a million requests" in capsys.readouterr().out
