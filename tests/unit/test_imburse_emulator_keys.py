"""The emulator's key endpoints: who may make, list and delete, and what a fault of them is for."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

import pytest

from local.imburse import Fault, Imburse, ImburseKey
from local.imburse_errors import InvalidDocument, Refusal
from local.imburse_faults import FaultBox
from local.imburse_management import delete_key, make_key, tenant_keys
from tests.imburse_rules import Clock, a_token, code_of

WANTED = {"name": "settlement", "roles": ["tenant-app-read"]}


def key(public_key: str, *roles: str, account: str = "account-1", tenant: str | None = "tenant-1") -> ImburseKey:
    return ImburseKey(public_key, secrets.token_bytes(32), account, tenant, roles)


ADMIN = key("admin", "tenant-admin")
ACCOUNT = key("account", "account-admin", tenant=None)
UNTOLD = key("untold")
READER = key("reader", "tenant-app-read")


@pytest.fixture
def imburse() -> Imburse:
    others = [key("neighbour", tenant="tenant-2"), key("stranger", account="account-2", tenant="tenant-3")]
    return Imburse([ADMIN, ACCOUNT, UNTOLD, READER, *others], clock=Clock())


@pytest.mark.parametrize("manager", [ADMIN, ACCOUNT, UNTOLD])
def test_a_key_is_made_shown_once_works_and_is_gone_at_once(imburse: Imburse, manager: ImburseKey) -> None:
    made = make_key(imburse.keys, manager, "tenant-1", WANTED)
    assert {name: made[name] for name in ("accountId", "tenantId", "name", "roles")} == {
        "accountId": "account-1",
        "tenantId": "tenant-1",
        **WANTED,
    }
    assert len(base64.b64decode(made["privateKey"])) == 32
    listed = tenant_keys(imburse.keys, manager, "tenant-1")
    assert {one["publicKey"] for one in listed} == {"admin", "untold", "reader", made["publicKey"]}
    assert made["privateKey"] not in json.dumps(listed)
    fresh = imburse.keys.require(made["publicKey"])
    token = a_token(imburse, fresh)
    delete_key(imburse.keys, manager, "tenant-1", made["publicKey"])
    with pytest.raises(Refusal) as refused:
        imburse.me([f"Bearer {token}"], "account-1", "tenant-1")
    assert code_of(refused) == (401, "API_KEY_REVOKED"), "and its tokens with it"
    with pytest.raises(Refusal) as refused:
        delete_key(imburse.keys, manager, "tenant-1", made["publicKey"])
    assert code_of(refused) == (404, "API_KEY_NOT_FOUND")


@pytest.mark.parametrize(
    ("manager", "tenant", "code"),
    [
        (READER, "tenant-1", "ROLE_HAS_NO_ACCESS"),
        (key("x", "account-tenant-approval", tenant=None), "tenant-1", "ROLE_HAS_NO_ACCESS"),
        (ADMIN, "tenant-2", "TENANT_ID_HAS_NO_ACCESS"),
        (ACCOUNT, "tenant-3", "TENANT_ID_HAS_NO_ACCESS"),
        (ACCOUNT, "nowhere", "TENANT_ID_HAS_NO_ACCESS"),
    ],
)
def test_others_may_not(imburse: Imburse, manager: ImburseKey, tenant: str, code: str) -> None:
    calls = (
        lambda: make_key(imburse.keys, manager, tenant, WANTED),
        lambda: tenant_keys(imburse.keys, manager, tenant),
        lambda: delete_key(imburse.keys, manager, tenant, "reader"),
    )
    for call in calls:
        with pytest.raises(Refusal) as refused:
            call()
        assert code_of(refused) == (403, code)
    assert len(list(imburse.keys)) == 6


@pytest.mark.parametrize("public_key", ["neighbour", "stranger", "account", "nobody"])
def test_no_key_of_another_tenant_is_deleted(imburse: Imburse, public_key: str) -> None:
    with pytest.raises(Refusal) as refused:
        delete_key(imburse.keys, ADMIN, "tenant-1", public_key)
    assert code_of(refused) == (404, "API_KEY_NOT_FOUND")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": "x"},
        WANTED | {"name": ""},
        WANTED | {"name": 7},
        WANTED | {"roles": "tenant-admin"},
        WANTED | {"roles": ["account-admin"]},
        WANTED | {"roles": [7]},
        WANTED | {"more": 1},
    ],
)
def test_a_request_that_is_not_whole_makes_no_key(imburse: Imburse, document: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument):
        make_key(imburse.keys, ADMIN, "tenant-1", document)
    assert len(list(imburse.keys)) == 6


def test_a_token_is_used_up_by_one_call_and_must_come_with_its_scope(imburse: Imburse) -> None:
    bearer = [f"Bearer {a_token(imburse, ADMIN)}"]
    assert imburse.bearer(bearer, "account-1", "tenant-1") == ADMIN
    with pytest.raises(Refusal) as refused:
        imburse.bearer(bearer, "account-1", "tenant-1")
    assert code_of(refused) == (401, "ACCESS_TOKEN_ALREADY_USED")
    with pytest.raises(Refusal) as refused:
        imburse.bearer([f"Bearer {a_token(imburse, ACCOUNT)}"], "account-1", "tenant-1")
    assert code_of(refused) == (400, "TENANT_ID_IS_NOT_EXPECTED")


@pytest.mark.parametrize(
    ("fault", "path", "method", "met"),
    [
        (Fault("drop", path="/keys", method="POST"), "/keys", "POST", True),
        (Fault("drop", path="/keys", method="POST"), "/keys", "GET", False),
        (Fault("drop", path="/keys/*"), "/keys/one", "DELETE", True),
        (Fault("drop", path="/keys/*"), "/keys", "DELETE", False),
        (Fault("drop", path="/keys"), "/keys/one", "GET", False),
        (Fault("drop"), "/anything", "GET", True),
    ],
)
def test_a_fault_is_for_its_path_and_method(fault: Fault, path: str, method: str, met: bool) -> None:
    box = FaultBox()
    box.add(fault)
    assert (box.take_turn(path, method).answer is not None) is met


@pytest.mark.parametrize(
    ("kind", "refuses"), [("drop_before", True), ("status", True), ("drop", False), ("garbage", False)]
)
def test_a_fault_comes_before_or_after_the_effect(kind: Any, refuses: bool) -> None:
    box = FaultBox()
    box.add(Fault.from_json({"kind": kind, "method": "POST", "status": 503}))
    assert box.take_turn("/keys", "POST").refuses is refuses
