"""What the demo may show."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from local.demo_voice import StepFailed, Voice, abbreviated, expect

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiJhIn0.c2lnbmF0dXJl"  # pragma: allowlist secret (invented)


def test_a_token_is_cut_to_twelve_characters_wherever_it_stands_and_however_often() -> None:
    assert abbreviated(f'{{"a": "{TOKEN}"}} {TOKEN}') == '{"a": "eyJhbGciOiJI…"} eyJhbGciOiJI…'
    assert abbreviated(abbreviated(TOKEN)) == "eyJhbGciOiJI…"


def test_what_is_not_expected_is_told_without_the_token() -> None:
    expect(1, 1, "one")
    with pytest.raises(StepFailed, match="the answer: expected 'x', got 'eyJhbGciOiJI…'"):
        expect(TOKEN, "x", "the answer")


def test_no_line_holds_a_token_and_a_long_line_stays_whole() -> None:
    out = io.StringIO()
    voice = Voice(Console(file=out, width=40))
    for say in (voice.asks, voice.gets, voice.proves, voice.fails, voice.ends):
        say(f"{TOKEN} {'long ' * 20}end")
    voice.document({"token": TOKEN, "list": [TOKEN]})

    assert TOKEN not in out.getvalue()
    assert out.getvalue().count("end\n") == 5
