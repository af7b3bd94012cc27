"""What a claim remembers, to the second and to the sort key."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from imburse_auth import CredentialId
from vending.supply.leftovers import Leftovers, Seen

WHOSE = ("key", "account", None, None)


def served(seen: Seen, now: float, from_sk: str = "2") -> tuple[list[str], list[str]]:
    return seen.serving(whose=WHOSE, least_seconds=seen.least_seconds, from_sk=from_sk, now=now)


@pytest.mark.parametrize("at", [0.0, 10.0, 1_614_350_000.0])
def test_a_look_serves_until_five_seconds_after_it(at: float) -> None:
    seen = Seen(WHOSE, 300, at, 0, ["1", "2", "3"])
    assert served(seen, at) == served(seen, at + 4.9) == (["1"], ["2", "3"])
    for later in (5.0, 13.0, 3600.0):
        assert served(seen, at + later) == ([], [])


def test_each_sort_key_is_on_one_side_of_where_a_look_would_begin() -> None:
    assert served(Seen(WHOSE, 0, 0.0, 0, ["1", "2", "3"]), 1.0, from_sk="3") == (["1", "2"], ["3"])


def test_nothing_remembered_is_a_look_by_nobody_for_nothing_at_the_usual_width() -> None:
    assert Leftovers().pop(CredentialId("sandbox", "a")) == Seen((), 0, 0.0, 0, [])


def test_the_last_hundred_credentials_are_remembered() -> None:
    leftovers, seen = Leftovers(), Seen(WHOSE)
    credentials = [CredentialId("sandbox", f"c{number}") for number in range(101)]
    for credential in credentials:
        leftovers.put(credential, seen)
    assert [leftovers.pop(credential) == seen for credential in credentials] == [False] + [True] * 100


def test_what_was_seen_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Seen().at = 1.0  # type: ignore[misc]
