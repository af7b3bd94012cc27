"""`imburse-vending check`: each usual mistake is made here once, and found."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imburse_auth.api_key import ApiKey
from imburse_auth.hmac_token import sign
from imburse_vending.header_parts import take_apart
from tests.cli_run import Done, run

PUBLIC = "4b1f0a52-0000-4000-8000-000000000001"
PRIVATE = base64.b64encode(hashlib.sha256(b"a key of this test").digest()).decode()
NOW = 1_700_000_000
NONCE = "0f8fad5bd9cb469fa16570867728950e"
GOOD = sign(ApiKey(PUBLIC, PRIVATE), nonce=NONCE, timestamp=NOW).authorization
SIGNATURE = GOOD.rsplit(":", 1)[1]


def wrongs(header: str, now: float = NOW) -> dict[str, str]:
    """What is wrong, by part: what it says and how to mend it."""
    return {one.part: f"{one.says}: {one.fix}" for one in take_apart(header, now=now)[1] if one.wrong}


def test_nothing_is_wrong_with_a_good_header() -> None:
    assert wrongs(GOOD) == {}
    assert wrongs(f"Authorization: {GOOD}\n") == {}


@pytest.mark.parametrize(
    ("header", "part", "says"),
    [
        (GOOD.replace("Hmac ", "HMAC "), "scheme", "misspelt"),
        (GOOD.replace("Hmac ", "hmac "), "scheme", "misspelt"),
        (GOOD.replace("Hmac ", "Hmac"), "scheme", "no space"),
        (GOOD.replace("Hmac ", ""), "scheme", "none"),
        ("Bearer eyJ", "scheme", "Bearer"),
        ("Hmac {" + GOOD[5:] + "}", "brackets", "placeholder"),
        ("Hmac " + ":".join("{" + part + "}" for part in GOOD[5:].split(":")), "brackets", "placeholder"),
        (GOOD.replace(NONCE, "a:b"), "form", "colon in the nonce"),
        ("Hmac a:b:c", "form", "3 parts"),
        (GOOD.replace(NONCE, "3a1b6b6e-0000-4000-8000-000000000001"), "nonce", "dashes"),
        (GOOD.replace(NONCE, ""), "nonce", "empty"),
        (GOOD.replace(str(NOW), f"{NOW}123"), "timestamp", "milliseconds"),
        (GOOD.replace(str(NOW), f"{NOW}123456"), "timestamp", "microseconds"),
        (GOOD.replace(str(NOW), f"{NOW}.5"), "timestamp", "whole"),
        (GOOD.replace(str(NOW), "2023-11-14T22:13:20Z"), "timestamp", "whole"),
        (GOOD.replace(str(NOW), "²"), "timestamp", "whole"),
        (GOOD.replace(str(NOW), "9" * 5000), "timestamp", "whole"),
        (GOOD.replace(str(NOW), str(NOW - 400)), "timestamp", "too old"),
        (GOOD.replace(str(NOW), str(NOW + 400)), "timestamp", "future"),
        (GOOD.replace(str(NOW), str(NOW + 3600 - 5)), "timestamp", "UTC+1:00"),
        (GOOD.replace(str(NOW), str(NOW - 5 * 3600)), "timestamp", "UTC-5:00"),
        (GOOD.replace(str(NOW), str(NOW + 20_700)), "timestamp", "UTC+5:45"),
        (GOOD.replace(SIGNATURE, base64.b64decode(SIGNATURE).hex()), "signature", "hexadecimal"),
        (GOOD.rstrip("="), "signature", "padding"),
        (GOOD[:-9], "signature", "base64"),
        (GOOD.replace(SIGNATURE, base64.b64encode(b"x" * 20).decode()), "signature", "20 bytes"),
        (GOOD.replace(SIGNATURE, base64.b64encode(b"0" * 64).decode()), "signature", "hex digits"),
        (GOOD.replace(SIGNATURE, base64.urlsafe_b64encode(b"\xff" * 32).decode()), "signature", "URL-safe"),
        (GOOD.replace("=", "%3D"), "signature", "percent"),
        (GOOD + " ", "white space", "end"),
        (GOOD.replace(":", ": "), "white space", "between"),
        (GOOD.replace(PUBLIC, PRIVATE), "public key", "private key"),
        (GOOD.replace(PUBLIC, ""), "public key", "empty"),
    ],
)
def test_what_can_be_seen_without_the_key(header: str, part: str, says: str) -> None:
    assert says in wrongs(header)[part]


def test_five_minutes_are_neither_old_nor_a_time_zone() -> None:
    assert wrongs(GOOD, NOW + 300) == {}
    assert wrongs(GOOD, NOW - 300) == {}


@given(st.text(max_size=300))
@settings(max_examples=200)
def test_whatever_is_pasted_is_taken_apart_without_a_fault(text: str) -> None:
    take_apart(text, now=NOW)
    take_apart("Hmac " + text, now=NOW)
    take_apart(GOOD.replace(NONCE, text), now=NOW)


def check(signature: str, *, private: str = PRIVATE) -> Done:
    """Run it on a header of now, with a key that is read from standard input."""
    key = json.dumps({"publicKey": PUBLIC, "privateKey": private}).encode()
    return run("check", f"Hmac {HEAD}:{signature}", "--key-file", "-", "--json", stdin=key)


def fixes(done: Done) -> list[str]:
    return [one["fix"] for one in json.loads(done.out)["findings"] if one["part"] == "recipe" and one["fix"]]


TIME = int(time.time())
HEAD = f"{PUBLIC}:{NONCE}:{TIME}"
EMPTY = base64.b64encode(hashlib.sha256(b"").digest()).decode()
KEY = base64.b64decode(PRIVATE)


def mac(message: str, key: bytes = KEY, how: str = "sha256") -> bytes:
    return hmac.digest(key, message.encode(), how)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_the_right_recipe_is_recognised() -> None:
    done = check(b64(mac(HEAD + ":")))
    assert done.code == 0
    assert "right: this key makes this signature" in done.out


@pytest.mark.parametrize(
    ("signature", "mistake"),
    [
        (lambda: b64(mac(HEAD + ":", PRIVATE.encode())), "base64-decode it first"),
        (lambda: mac(HEAD + ":").hex(), "the signature is hexadecimal"),
        (lambda: mac(HEAD + ":").hex().upper(), "the signature is hexadecimal"),
        (lambda: b64(mac(HEAD + ":").hex().encode()), "base64 of its hex digits"),
        (lambda: b64(mac(HEAD)), "last colon"),
        (lambda: b64(mac(f"{HEAD}:{EMPTY}")), "an empty body has an empty hash"),
        (lambda: b64(mac(f"{NONCE}:{PUBLIC}:{TIME}:")), "the order was nonce:publicKey:timestamp"),
        (lambda: b64(mac(f"{PUBLIC}:{TIME}:{NONCE}:")), "the order was publicKey:timestamp:nonce"),
        (lambda: b64(mac(f"{HEAD}000:")), "signed in milliseconds and sent in seconds"),
        (lambda: b64(mac(f"{PUBLIC.upper()}:{NONCE}:{TIME}:")), "upper case"),
        (lambda: b64(mac(f"Hmac {HEAD}:")), "`Hmac ` was signed too"),
        (lambda: b64(mac(f"{PUBLIC}{NONCE}{TIME}:")), "without colons"),
        (lambda: b64(mac(f"{{{PUBLIC}}}:{{{NONCE}}}:{{{TIME}}}:")), "braces of each part"),
        (lambda: b64(mac(f"{HEAD}:{{}}")), "hash was signed in braces"),
        (lambda: b64(hmac.digest((HEAD + ":").encode(), KEY, "sha256")), "changed places"),
        (lambda: b64(mac(HEAD + ":", how="sha512")), "HMAC-SHA-512"),
        (lambda: b64(mac(HEAD + ":", how="sha1")), "HMAC-SHA-1"),
        (lambda: b64(hashlib.sha256(KEY + (HEAD + ":").encode()).digest()), "plain SHA-256"),
        (lambda: b64(mac(HEAD + ":")).rstrip("="), "padding"),
    ],
)
def test_the_recipe_that_makes_the_signature_is_named(signature: Callable[[], str], mistake: str) -> None:
    done = check(signature())
    assert done.code == 1
    (fix,) = fixes(done)
    assert mistake in fix


def test_two_mistakes_at_once_are_both_named() -> None:
    found = fixes(check(mac(HEAD, PRIVATE.encode()).hex()))
    assert len(found) == 3
    assert any("base64-decode" in fix for fix in found)


@pytest.mark.parametrize(
    ("tail", "mistake"),
    [
        ("", "left out"),
        (hashlib.sha256(b'{"a": 1}').hexdigest(), "hash is hexadecimal"),
        (b64(hashlib.sha256(b'{"a": 1}').hexdigest().encode()), "hash is base64 of its hex digits"),
        ('{"a": 1}', "unhashed"),
        (b64(hashlib.sha256(b'{"a": 1}\n').digest()), "line end"),
    ],
)
def test_what_was_done_wrong_with_the_body_is_named(tmp_path: Path, tail: str, mistake: str) -> None:
    (tmp_path / "body").write_bytes(b'{"a": 1}')
    key = json.dumps({"publicKey": PUBLIC, "privateKey": PRIVATE}).encode()
    header = f"Hmac {HEAD}:{b64(mac(f'{HEAD}:{tail}'))}"
    done = run("check", header, "--key-file", "-", "--body", str(tmp_path / "body"), "--json", stdin=key)
    (fix,) = fixes(done)
    assert mistake in fix


def test_another_key_is_told_from_a_wrong_recipe_and_no_private_key_is_shown() -> None:
    other = b64(hashlib.sha256(b"another key").digest())
    done = check(b64(mac(HEAD + ":")), private=other)
    assert done.code == 1
    assert "another private key" in done.out
    assert other not in done.text


def test_a_private_key_pasted_into_the_header_is_not_repeated() -> None:
    done = run("check", f"Hmac {PRIVATE}:{NONCE}:{TIME}:{b64(b'x' * 32)}")
    assert done.code == 1
    assert PRIVATE not in done.text


def test_standard_input_keeps_it_out_of_the_history_and_an_argument_is_warned_about() -> None:
    header = f"Hmac {HEAD}:{b64(mac(HEAD + ':'))}"
    assert "history" in run("check", header).err
    done = run("check", "-", stdin=header.encode())
    assert (done.code, "history" in done.err) == (0, False)


@pytest.mark.parametrize("noise", ["\udcff", "é", "\x1b[2J", "\u202e", "\x00"])
def test_bytes_that_are_no_text_are_a_finding_and_no_bug(noise: str) -> None:
    header = f"Hmac {PUBLIC}:{noise}:{TIME}:{b64(mac(HEAD + ':'))}{noise}"
    key = json.dumps({"publicKey": PUBLIC, "privateKey": PRIVATE}).encode()
    done = run("check", header, "--key-file", "-", stdin=key)
    assert done.code == 1
    assert "a bug" not in done.text
    assert "\x1b" not in done.text
    assert "nonce" in run("check", "-", stdin=header.encode("utf-8", "surrogateescape")).out


@pytest.mark.parametrize("header", ["", "  ", "-"])
def test_nothing_to_check_is_called_wrongly(header: str) -> None:
    assert run("check", header).code == 2


@pytest.mark.parametrize("minutes", [15, 30, 45, 75])
def test_a_quarter_of_an_hour_is_late_and_no_time_zone(minutes: int) -> None:
    assert "too old" in wrongs(GOOD, now=NOW + minutes * 60)["timestamp"]


def test_a_written_time_has_colons_of_its_own_and_is_not_blamed_on_the_nonce() -> None:
    for time_ in ("2023-11-14T22:13:20Z", "2023-11-14T22:13:20.123+01:00"):
        assert set(wrongs(GOOD.replace(str(NOW), time_))) == {"timestamp"}
