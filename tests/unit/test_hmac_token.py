import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth import ApiKey, HmacToken, sign
from tests.fakes import private_key

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hmac.json").read_text())
KEY = ApiKey("some-public-key", private_key())


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_a_known_answer(vector: dict[str, Any]) -> None:
    key = ApiKey(public_key=vector["publicKey"], private_key=vector["privateKey"])
    for body in (vector["body"], vector["body"].encode()):
        token = sign(key, body, nonce=vector["nonce"], timestamp=vector["timestamp"])
        assert token.body_hash == vector["bodyHash"]
        assert token.string_to_sign == vector["stringToSign"]
        assert token.signature == vector["signature"]
        assert token.authorization == vector["authorization"]


def test_the_vectors_are_there() -> None:
    assert len(VECTORS) >= 9


def test_a_nonce_of_ours_is_fresh_alphanumeric_and_has_128_bits() -> None:
    nonces = [sign(KEY).nonce for _ in range(1000)]
    assert len(set(nonces)) == 1000
    assert all(nonce.isascii() and nonce.isalnum() and 16 <= len(nonce) <= 128 for nonce in nonces)
    assert all(len(bytes.fromhex(nonce)) * 8 >= 128 for nonce in nonces)


def test_a_nonce_of_ours_is_no_longer_than_it_needs_to_be() -> None:
    assert len(sign(KEY).nonce) == 32  # 128 bits in hexadecimal


def test_a_timestamp_of_ours_is_whole_seconds_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1614350382.9)
    assert sign(KEY).timestamp == 1614350382


@pytest.mark.parametrize("nonce", ["", "a:b", "a b", "ä", "a-b", "a\n", "x" * 129, 7, b"abc"])
def test_a_nonce_that_is_not_alphanumeric_is_refused(nonce: Any) -> None:
    with pytest.raises(ValueError, match=r"^nonce: "):
        sign(KEY, nonce=nonce)


@pytest.mark.parametrize("timestamp", [1614350382000, -1])
def test_a_timestamp_that_is_no_time_in_seconds_is_refused(timestamp: int) -> None:
    with pytest.raises(ValueError, match=r"^timestamp: "):
        sign(KEY, timestamp=timestamp)


@pytest.mark.parametrize("timestamp", [1.5, "1614350382", True])
def test_a_timestamp_that_is_no_whole_number_is_refused(timestamp: Any) -> None:
    with pytest.raises(TypeError, match=r"^timestamp: "):
        sign(KEY, timestamp=timestamp)


@pytest.mark.parametrize("timestamp", [0, 99_999_999_999])
def test_the_first_and_the_last_second_that_can_be_signed(timestamp: int) -> None:
    assert sign(KEY, timestamp=timestamp).timestamp == timestamp


def test_the_first_number_that_can_only_be_milliseconds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^timestamp: "):
        sign(KEY, timestamp=100_000_000_000)


def test_without_a_body_there_is_no_body_hash() -> None:
    assert sign(KEY).body_hash == ""


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_kind_of_bytes_is_signed_as_those_bytes(kind: Any) -> None:
    assert sign(KEY, kind(b"body"), nonce="n", timestamp=1) == sign(KEY, b"body", nonce="n", timestamp=1)


def test_the_body_may_be_given_by_its_name() -> None:
    assert sign(KEY, body=b"body", nonce="n", timestamp=1) == sign(KEY, b"body", nonce="n", timestamp=1)


def test_an_error_about_the_body_does_not_carry_the_body() -> None:
    with pytest.raises(ValueError, match=r"^body: ") as caught:
        sign(KEY, "\ud800")
    assert caught.value.__suppress_context__


def test_a_token_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        sign(KEY).nonce = "another"  # type: ignore[misc]


def test_a_body_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^body: "):
        sign(KEY, "\ud800")
    with pytest.raises(TypeError, match=r"^body: "):
        sign(KEY, {"a": 1})  # type: ignore[arg-type]


def test_the_header_is_a_secret_for_five_minutes_so_repr_hides_it() -> None:
    token = sign(KEY)
    assert token.signature not in repr(token)
    assert token.authorization not in repr(token)


@given(st.binary())
def test_every_part_of_the_string_to_sign_counts(body: bytes) -> None:
    def signed(public_key: str = "p", nonce: str = "n", timestamp: int = 1, message: bytes = body) -> HmacToken:
        return sign(ApiKey(public_key, "AP8B/g=="), message, nonce=nonce, timestamp=timestamp)

    signatures = {
        token.signature
        for token in (
            signed(),
            signed(public_key="q"),
            signed(nonce="m"),
            signed(timestamp=2),
            signed(message=body + b"."),
        )
    }
    assert len(signatures) == 5
