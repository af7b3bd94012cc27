"""Which Hmac headers the emulator lets through, and the code of each refusal."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.imburse import Fault, Imburse, ImburseKey
from local.imburse_errors import Refusal
from tests.imburse_rules import NOW, Clock, a_tenant_key, an_account_key, code_of, signed

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hmac.json").read_text())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account_key() -> ImburseKey:
    return an_account_key()


@pytest.fixture
def tenant_key() -> ImburseKey:
    return a_tenant_key()


@pytest.fixture
def imburse(clock: Clock, account_key: ImburseKey, tenant_key: ImburseKey) -> Imburse:
    return Imburse([account_key, tenant_key], clock=clock)


@pytest.mark.parametrize("vector", VECTORS)
def test_every_known_answer_is_accepted(vector: Mapping[str, Any]) -> None:
    key = ImburseKey(vector["publicKey"], base64.b64decode(vector["privateKey"]), "account-1")
    imburse = Imburse([key], clock=Clock(vector["timestamp"]))

    assert imburse.authenticate([vector["authorization"]], vector["body"].encode()) is key


@pytest.mark.parametrize("offset", [-300, 0, 300])
def test_a_timestamp_within_five_minutes_on_either_side_is_accepted(
    imburse: Imburse, tenant_key: ImburseKey, offset: int
) -> None:
    assert imburse.authenticate([signed(tenant_key, timestamp=NOW + offset)], b"") is tenant_key


@pytest.mark.parametrize("offset", [-301, 301])
def test_a_timestamp_further_away_is_refused(imburse: Imburse, tenant_key: ImburseKey, offset: int) -> None:
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(tenant_key, timestamp=NOW + offset)], b"")
    assert code_of(refused) == (401, "HMAC_TIMESTAMP_OUT_OF_WINDOW")


def test_a_wrong_clock_judges_by_its_own_time(imburse: Imburse, tenant_key: ImburseKey) -> None:
    imburse.faults.add(Fault("clock", seconds=3600))

    imburse.authenticate([signed(tenant_key, timestamp=NOW + 3600)], b"")
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(tenant_key)], b"")
    assert code_of(refused) == (401, "HMAC_TIMESTAMP_OUT_OF_WINDOW")


@pytest.mark.parametrize("timestamp", [NOW - 300, NOW, NOW + 300])
def test_a_nonce_is_refused_for_as_long_as_its_header_could_be_replayed(
    imburse: Imburse, clock: Clock, tenant_key: ImburseKey, timestamp: int
) -> None:
    header = signed(tenant_key, timestamp=timestamp)
    imburse.authenticate([header], b"")

    for now in (NOW, timestamp + 150, timestamp + 300):
        clock.now = max(NOW, now)
        with pytest.raises(Refusal) as refused:
            imburse.authenticate([header], b"")
        assert code_of(refused) == (401, "HMAC_NONCE_ALREADY_USED")


def test_a_nonce_is_refused_under_another_key_too(
    imburse: Imburse, tenant_key: ImburseKey, account_key: ImburseKey
) -> None:
    imburse.authenticate([signed(tenant_key, nonce="once")], b"")

    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(account_key, nonce="once")], b"")
    assert code_of(refused) == (401, "HMAC_NONCE_ALREADY_USED")


def test_a_forged_header_does_not_use_the_nonce_up(imburse: Imburse, tenant_key: ImburseKey) -> None:
    forger = replace(tenant_key, private_key=secrets.token_bytes(32))
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(forger, nonce="once")], b"")
    assert code_of(refused) == (401, "HMAC_SIGNATURE_MISMATCH")

    assert imburse.authenticate([signed(tenant_key, nonce="once")], b"") is tenant_key


def test_old_nonces_are_forgotten_in_the_end(imburse: Imburse, clock: Clock, tenant_key: ImburseKey) -> None:
    imburse.authenticate([signed(tenant_key, nonce="once")], b"")
    clock.now = NOW + 601

    assert imburse.authenticate([signed(tenant_key, nonce="once", timestamp=NOW + 601)], b"") is tenant_key


@pytest.mark.parametrize(("said", "sent"), [(b"", b" "), (b"a", b""), (b"a", b"b")])
def test_the_signature_covers_the_body(imburse: Imburse, tenant_key: ImburseKey, said: bytes, sent: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(tenant_key, body=said)], sent)
    assert code_of(refused) == (401, "HMAC_SIGNATURE_MISMATCH")


def test_an_unknown_key_and_a_revoked_one_are_told_apart(imburse: Imburse, tenant_key: ImburseKey) -> None:
    stranger = ImburseKey("stranger", secrets.token_bytes(32), "account-1")
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(stranger)], b"")
    assert code_of(refused) == (401, "API_KEY_NOT_FOUND")

    imburse.keys.revoke(tenant_key.public_key)
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(tenant_key)], b"")
    assert code_of(refused) == (401, "API_KEY_REVOKED")


@pytest.mark.parametrize(
    "damage",
    [
        lambda header: header.replace("Hmac ", "hmac "),
        lambda header: header.replace("Hmac ", "Hmac  "),
        lambda header: header.replace("Hmac ", "Bearer "),
        lambda header: header.replace("Hmac ", "Hmac {") + "}",
        lambda header: header + " ",
        lambda header: header + ":",
        lambda header: header.rpartition(":")[0],
        lambda header: header.replace(f":{NOW}:", f":{NOW}.0:"),
        lambda header: header.replace(f":{NOW}:", f":-{NOW}:"),
        lambda header: header.replace(f":{NOW}:", ":١٧٠٠٠٠٠٠٠٠:"),
        lambda header: header.replace(f":{NOW}:", f"-:{NOW}:"),
        lambda header: "",
        lambda header: "Hmac",
    ],
)
def test_a_header_that_is_not_quite_right_is_malformed(imburse: Imburse, tenant_key: ImburseKey, damage: Any) -> None:
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([damage(signed(tenant_key))], b"")
    assert code_of(refused) == (400, "HMAC_HEADER_IS_MALFORMED")


def test_two_authorization_headers_are_malformed_and_none_is_missing(imburse: Imburse, tenant_key: ImburseKey) -> None:
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([signed(tenant_key), signed(tenant_key)], b"")
    assert code_of(refused) == (400, "HMAC_HEADER_IS_MALFORMED")
    with pytest.raises(Refusal) as refused:
        imburse.authenticate([], b"")
    assert code_of(refused) == (401, "AUTHORIZATION_HEADER_IS_REQUIRED")


@given(header=st.text(max_size=80), body=st.binary(max_size=8))
def test_no_header_gets_in_or_breaks_the_gate_without_the_key(header: str, body: bytes) -> None:
    imburse = Imburse([ImburseKey("k", b"secret bytes", "account-1")], clock=Clock())
    for attempt in (header, f"Hmac {header}", f"Hmac k:{header}", f"Hmac k:n:{NOW}:{header}"):
        with pytest.raises(Refusal):
            imburse.authenticate([attempt], body)
