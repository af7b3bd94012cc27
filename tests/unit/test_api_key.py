import base64
import copy
import hmac
import json
import pickle
from datetime import UTC, datetime
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import CredentialMisconfigured
from tests.fakes import private_key, secret

NULL = object()  # in a case of changes, where None leaves the field out


def test_a_secret_with_every_field_becomes_a_key() -> None:
    members = secret(name="payouts", roles=["tenant-app-read"], baseUrl="https://own.test", reuse="shared", note="ours")
    key = ApiKey.from_secret(json.dumps(members))
    assert (key.public_key, key.account_id, key.tenant_id) == (members["publicKey"], "account-1", "tenant-a")
    assert (key.name, key.roles, key.base_url, key.reuse) == (
        "payouts",
        ("tenant-app-read",),
        "https://own.test",
        "shared",
    )


@pytest.mark.parametrize(("pool_min", "pool_max"), [(0, 0), (0, 1), (5, 5), (10_000, 10_000)])
def test_a_pool_has_a_floor_and_a_ceiling(pool_min: int, pool_max: int) -> None:
    key = ApiKey.from_secret(json.dumps(secret(poolMin=pool_min, poolMax=pool_max)))
    assert (key.pool_min, key.pool_max) == (pool_min, pool_max)


def test_there_is_no_pool_unless_asked_for() -> None:
    key = ApiKey.from_secret(json.dumps(secret()))
    assert (key.pool_min, key.pool_max) == (0, 0)


def test_who_manages_a_key_and_since_when_it_is_in_use() -> None:
    key = ApiKey.from_secret(json.dumps(secret(managedBy="sandbox/admin", createdAt="2026-01-31T13:00:00+01:00")))
    assert key.managed_by == CredentialId("sandbox", "admin")
    assert key.created_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    other = ApiKey.from_secret(json.dumps(secret()))
    assert (other.managed_by, other.created_at) == (None, None)


def test_account_and_tenant_are_optional_outside_a_secret() -> None:
    key = ApiKey(public_key="some-public-key", private_key=private_key())
    assert (key.account_id, key.tenant_id, key.reuse) == (None, None, "single-use")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"publicKey": None}, "publicKey"),
        ({"publicKey": ""}, "publicKey"),
        ({"publicKey": "a:b"}, "publicKey"),
        ({"publicKey": "a b"}, "publicKey"),
        ({"publicKey": "a\r\nx-evil: 1"}, "publicKey"),
        ({"publicKey": "schlüssel"}, "publicKey"),
        ({"publicKey": 7}, "publicKey"),
        ({"privateKey": None}, "privateKey"),
        ({"privateKey": ""}, "privateKey"),
        ({"privateKey": "AGHYR1aWYgHgyjhJLkVCd7b8XfAVeA4tuFwCQl3X64Y"}, "privateKey"),  # no padding
        ({"privateKey": "AGHY-1aWYgHgyjhJLkVCd7b8XfAVeA4tuFwCQl3X64Y="}, "privateKey"),  # URL-safe alphabet
        ({"privateKey": "AGHYR1aWYgHgyjhJLkVCd7b8XfAVeA4tuFwCQl3X64Y=\n"}, "privateKey"),
        (
            {"privateKey": "AGHYR1aWYgHgyjhJLkVCd7b8XfAVeA4tuFwCQl3X64Z="},
            "privateKey",
        ),  # bits that mean nothing are set
        (
            {"privateKey": "AGHYR1aWYgHgyjhJLkVCd7b8XfAVeA4tuFwCQl3X64+="},
            "privateKey",
        ),  # and so here, where what it should be sorts behind it
        ({"privateKey": ["x"]}, "privateKey"),
        ({"privateKey": "schlüssel"}, "privateKey"),
        ({"accountId": None}, "accountId"),
        ({"accountId": "a\nb"}, "accountId"),
        ({"tenantId": ""}, "tenantId"),
        ({"tenantId": NULL}, "tenantId"),
        ({"roles": NULL}, "roles"),
        ({"tenantId": 12}, "tenantId"),
        ({"tenantID": "tenant-b"}, "tenantId"),
        ({"tennantId": "tenant-b"}, "tenantId"),
        ({"tenant_id": "tenant-b"}, "tenantId"),
        ({"p_o_o_l_m_i_n": 0}, "poolMin"),
        ({"name": 1}, "name"),
        ({"name": ""}, "name"),
        ({"roles": "tenant-admin"}, "roles"),
        ({"roles": [1]}, "roles"),
        ({"roles": [""]}, "roles"),
        ({"baseUrl": 1}, "baseUrl"),
        ({"reuse": "often"}, "reuse"),
        ({"reuse": ["shared"]}, "reuse"),
        ({"poolMin": -1}, "poolMin"),
        ({"poolMin": 1.5, "poolMax": 2}, "poolMin"),
        ({"poolMin": True, "poolMax": 2}, "poolMin"),
        ({"poolMax": "10"}, "poolMax"),
        ({"poolMax": 10_001}, "poolMax"),
        ({"poolMin": 3, "poolMax": 2}, "poolMin"),
        ({"poolMin": 3}, "poolMin"),  # without a ceiling there is no pool
        ({"poolmax": 3}, "poolMax"),
        ({"pool_min": 0, "poolMax": 3}, "poolMin"),
        ({"managedBy": "admin"}, "managedBy"),
        ({"managedBy": 1}, "managedBy"),
        ({"managed_by": "sandbox/admin"}, "managedBy"),
        ({"createdAt": "yesterday"}, "createdAt"),
        ({"createdAt": "2026-02-01T09:30:00"}, "createdAt"),  # by which clock?
        ({"createdAt": 1614350382}, "createdAt"),
    ],
)
def test_a_wrong_field_is_named_and_no_value_is_shown(changes: dict[str, Any], field: str) -> None:
    members = {name: None if value is NULL else value for name, value in secret(**changes).items()}
    with pytest.raises(CredentialMisconfigured) as caught:
        ApiKey.from_secret(json.dumps(members))
    said = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    assert str(caught.value).startswith(f"{field}: ")
    for value in members.values():
        assert not (isinstance(value, str) and len(value) > 4 and value in said)


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", "null", '"text"', "[" * 100_000, '{"publicKey": "a", "publicKey": "b"}']
)
def test_a_secret_that_is_no_json_object_is_misconfigured(text: str) -> None:
    with pytest.raises(CredentialMisconfigured, match=r"^secret: "):
        ApiKey.from_secret(text)


def test_a_field_that_stands_twice_is_told_from_broken_json() -> None:
    with pytest.raises(CredentialMisconfigured, match="twice"):
        ApiKey.from_secret('{"publicKey": "a", "publicKey": "b"}')


def test_a_secret_may_hold_hundreds_of_members_that_mean_nothing() -> None:
    notes = {f"note-{number}": number for number in range(300)}
    assert ApiKey.from_secret(json.dumps(secret(**notes))).account_id == "account-1"


def test_a_member_that_only_resembles_a_field_is_ignored() -> None:
    assert ApiKey.from_secret(json.dumps(secret(username="somebody"))).name is None


def test_an_error_in_the_json_does_not_carry_the_text() -> None:
    key = private_key()
    with pytest.raises(CredentialMisconfigured) as caught:
        ApiKey.from_secret(f'{{"privateKey": "{key}"')
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(json.dumps)
)
def test_any_text_is_a_key_or_misconfigured(text: str) -> None:
    with pytest.raises(CredentialMisconfigured):
        ApiKey.from_secret(text)


def test_the_private_key_shows_nowhere() -> None:
    text = private_key()
    key = ApiKey("some-public-key", text, "account-1")
    assert text not in repr(key)
    assert "_secret" not in repr(key)
    assert not hasattr(key, "private_key")
    assert not hasattr(key, "__dict__")
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            leak(key)


def test_a_key_does_not_change() -> None:
    key = ApiKey("some-public-key", private_key())
    with pytest.raises(AttributeError):
        key.public_key = "another"
    with pytest.raises(AttributeError):
        del key.public_key


def test_keys_are_equal_only_with_the_same_private_key_and_parts() -> None:
    text = private_key()
    key = ApiKey("some-public-key", text, "account-1", "tenant-a")
    assert key == ApiKey("some-public-key", text, "account-1", "tenant-a")
    assert hash(key) == hash(ApiKey("some-public-key", text, "account-1", "tenant-a"))
    assert key != ApiKey("some-public-key", private_key(), "account-1", "tenant-a")
    assert key != ApiKey("some-public-key", text, "account-1", "tenant-b")
    assert key != "some-public-key"
    assert len({key, ApiKey("some-public-key", private_key(), "account-1", "tenant-a")}) == 2


OTHER_PARTS: dict[str, Any] = {
    "public_key": "another-public-key",
    "account_id": "account-2",
    "tenant_id": "tenant-b",
    "name": "payouts",
    "roles": ["tenant-admin"],
    "base_url": "https://own.test",
    "reuse": "shared",
    "pool_min": 1,
    "pool_max": 3,
    "managed_by": CredentialId("sandbox", "admin"),
    "created_at": datetime(2026, 1, 31, tzinfo=UTC),
}


@pytest.mark.parametrize("part", OTHER_PARTS)
def test_every_part_of_a_key_counts_when_keys_are_compared(part: str) -> None:
    members: dict[str, Any] = {"public_key": "some-public-key", "private_key": private_key(), "pool_max": 2}
    assert ApiKey(**members) != ApiKey(**{**members, part: OTHER_PARTS[part]})


def test_what_is_not_given_is_not_made_up() -> None:
    key = ApiKey("some-public-key", private_key())
    assert (key.name, key.roles, key.base_url, key.managed_by) == (None, (), None, None)


def test_a_manager_may_be_given_as_an_id() -> None:
    manager = CredentialId("sandbox", "admin")
    assert ApiKey("some-public-key", private_key(), managed_by=manager).managed_by == manager


def test_a_key_leaves_it_to_others_to_say_that_they_equal_it() -> None:
    assert ApiKey("some-public-key", private_key()) == ANY


def test_a_key_signs_with_hmac_sha_256() -> None:
    text = private_key()
    assert ApiKey("some-public-key", text).mac(b"message") == hmac.digest(base64.b64decode(text), b"message", "sha256")


def test_the_repr_of_a_key_says_whose_it_is() -> None:
    key = ApiKey("some-public-key", private_key(), "account-1")
    assert repr(key) == "ApiKey(public_key='some-public-key', account_id='account-1', tenant_id=None)"
