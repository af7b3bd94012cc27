"""`imburse-vending when`: what a timestamp means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imburse_vending.when import how_long, read, relative
from tests.cli_run import run

BERLIN = timezone(timedelta(hours=1))
NOW = 1_700_000_000.9


@pytest.mark.parametrize(
    ("text", "seconds", "read_as"),
    [
        (None, 1_700_000_000, "now"),
        ("1614350382", 1_614_350_382, "seconds"),
        ("1560514835115", 1_560_514_835, "milliseconds"),
        ("100000000000", 100_000_000_000, "seconds"),
        ("100000000001", 100_000_000, "milliseconds"),
        ("0", 0, "seconds"),
        ("2021-02-26T14:39:42Z", 1_614_350_382, "ISO 8601"),
        ("2021-02-26T15:39:42+01:00", 1_614_350_382, "ISO 8601"),
        ("2021-02-26 15:39:42", 1_614_350_382, "ISO 8601, local time since it says no offset"),
    ],
)
def test_it_reads_seconds_milliseconds_and_iso_8601_and_says_which(
    text: str | None, seconds: int, read_as: str
) -> None:
    moment = read(text, now=NOW, zone=BERLIN)
    assert (moment.seconds, moment.read_as) == (seconds, read_as)


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "-1", "1.5", "1e9", "²", "1614350382 ", "9" * 16, "9" * 5000, "1969-01-01T00:00:00Z"]
)
def test_what_is_no_time_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        read(text, now=NOW)
    done = run("when", "--", text)
    assert done.code == 2
    assert "Traceback" not in done.text


@given(st.integers(0, 10**11))
def test_the_iso_8601_of_a_time_is_the_same_time(seconds: int) -> None:
    assert read(datetime.fromtimestamp(seconds, UTC).isoformat(), now=NOW).seconds == seconds


def test_json_has_it_in_every_form() -> None:
    document = json.loads(run("when", "1614350382123", "--json").out)
    assert document["utc"] == "2021-02-26T14:39:42Z"
    assert (document["seconds"], document["milliseconds"]) == (1_614_350_382, 1_614_350_382_000)
    assert document["readAs"] == "milliseconds"
    assert document["secondsFromNow"] < 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (1, "in 1 s"),
        (-300, "5 min ago"),
        (1798, "in 29 min 58 s"),
        (3600, "in 1 h"),
        (-90_000, "1 day 1 h ago"),
    ],
)
def test_how_far_it_is_from_now(seconds: int, words: str) -> None:
    assert relative(seconds) == words


def test_long_times_have_their_two_largest_units() -> None:
    assert how_long(2 * 31_557_600 + 3 * 86_400 + 4000) == "2 years 3 days"


def test_people_see_utc_and_local_time() -> None:
    done = run("when", "1614350382")
    assert done.code == 0
    assert "Fri 26 February 2021 14:39:42" in done.out
    assert "ago" in done.out


def test_a_negative_number_is_a_timestamp_that_is_wrong_and_no_option() -> None:
    done = run("when", "-5")
    assert (done.code, "TIMESTAMP: must be" in done.err) == (2, True)
