"""The emulator's faults and keys, as the control side takes them."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

import pytest

from local.imburse import Fault, Imburse, ImburseKey
from local.imburse_errors import InvalidDocument
from tests.imburse_rules import Clock, a_tenant_key


@pytest.fixture
def tenant_key() -> ImburseKey:
    return a_tenant_key()


@pytest.fixture
def imburse(tenant_key: ImburseKey) -> Imburse:
    return Imburse([tenant_key], clock=Clock())


def test_faults_take_turns_and_end(imburse: Imburse) -> None:
    imburse.faults.add(Fault("status", status=503, times=2))
    imburse.faults.add(Fault("drop", times=1, path="/v1/identity/hmac"))
    imburse.faults.add(Fault("latency", seconds=0.5, times=1))

    turns = [imburse.faults.take_turn("/v1/identity/hmac") for _ in range(4)]

    assert [turn.answer.kind if turn.answer else None for turn in turns] == ["status", "status", "drop", None]
    assert [turn.latency_seconds for turn in turns] == [0.5, 0, 0, 0]
    assert imburse.faults.active() == ()


def test_a_fault_for_one_path_leaves_the_other_alone(imburse: Imburse) -> None:
    imburse.faults.add(Fault("garbage", path="/v1/identity/me"))

    assert imburse.faults.take_turn("/v1/identity/hmac").answer is None
    assert imburse.faults.take_turn("/v1/identity/me").answer is not None
    imburse.faults.clear()
    assert imburse.faults.take_turn("/v1/identity/me").answer is None


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "object"),
        ({}, "kind"),
        ({"kind": "nonsense"}, "kind"),
        ({"kind": "latency"}, "seconds"),
        ({"kind": "status"}, "status"),
        ({"kind": "status", "status": 99}, "status"),
        ({"kind": "status", "status": True}, "status"),
        ({"kind": "drop", "times": 0}, "times"),
        ({"kind": "drop", "tmies": 1}, "tmies"),
        ({"kind": "clock", "seconds": "10"}, "seconds"),
    ],
)
def test_a_fault_that_is_none_is_refused_by_name(document: Any, named: str) -> None:
    with pytest.raises(InvalidDocument, match=named):
        Fault.from_json(document)


@pytest.mark.parametrize("field", ["publicKey", "privateKey", "accountId", "tenantId", "roles"])
def test_a_key_document_is_refused_by_the_name_of_its_field_and_never_by_value(field: str) -> None:
    private = base64.b64encode(secrets.token_bytes(32)).decode()
    document = {"publicKey": "p", "privateKey": private, "accountId": "a", "tenantId": "t", "roles": []}

    with pytest.raises(InvalidDocument, match=field) as refused:
        ImburseKey.from_json({**document, field: {"not": private}})
    assert private not in str(refused.value)


def test_nothing_shows_a_private_key_or_a_token(imburse: Imburse, tenant_key: ImburseKey) -> None:
    token = imburse.issue(tenant_key)

    assert repr(tenant_key.private_key) not in repr(tenant_key)
    assert token.value not in repr(token)
    assert token.value not in json.dumps(imburse.statistics.as_json()) + repr(imburse.statistics)
