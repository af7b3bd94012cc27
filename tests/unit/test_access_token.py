import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth import AccessToken, ApiKey
from imburse_auth.errors import UpstreamProtocol
from tests.fakes import NOW, private_key

TENANT_KEY = ApiKey("some-public-key", private_key(), "account-1", "tenant-a")


def read(payload: object, key: ApiKey = TENANT_KEY, now: float = NOW) -> AccessToken:
    return AccessToken.from_answer(payload, key, now=now)


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        (1614350382, 1614350382),
        ("1614350382", 1614350382),
        (1614350382999, 1614350382),
        ("1614350382999", 1614350382),
        (100_000_000_000, 100_000_000_000),  # the last that is seconds
        (1_700_000_000_001, 1_700_000_000),
    ],
)
def test_expires_is_handed_on_in_seconds(expires: Any, seconds: int) -> None:
    assert read({"accessToken": "abc", "expires": expires}).expires == seconds


@pytest.mark.parametrize(
    "expires", [None, "", "soon", "1e12", "-1", -1, 1614350382.5, True, [1], {}, 10**18, "9" * 400, "١٢٣"]
)
def test_an_expires_that_is_no_time_is_refused(expires: Any) -> None:
    with pytest.raises(UpstreamProtocol, match="expires"):
        read({"accessToken": "abc", "expires": expires})


@pytest.mark.parametrize("value", [None, "", 7, [], "a b", "a\r\nx-evil: 1", "tökén", "=", "a\x00"])
def test_a_value_that_is_no_bearer_token_is_refused(value: Any) -> None:
    with pytest.raises(UpstreamProtocol, match="accessToken"):
        read({"accessToken": value, "expires": 1614350382})


@pytest.mark.parametrize("payload", [None, [], "text", 1, True])
def test_an_answer_that_is_no_object_is_refused(payload: object) -> None:
    with pytest.raises(UpstreamProtocol, match="object"):
        read(payload)


def test_a_token_that_is_already_expired_is_refused() -> None:
    with pytest.raises(UpstreamProtocol, match="expired"):
        read({"accessToken": "abc", "expires": int(NOW)})
    assert read({"accessToken": "abc", "expires": int(NOW) + 1}).expires_in(NOW) == 1


def test_a_tenant_keys_token_names_account_and_tenant() -> None:
    token = read({"accessToken": "abc", "expires": 1614350382})
    assert token.headers() == {"Authorization": "Bearer abc", "x-account-id": "account-1", "x-tenant-id": "tenant-a"}


def test_an_account_keys_token_names_the_account_only() -> None:
    token = read({"accessToken": "abc", "expires": 1614350382}, ApiKey("p", private_key(), "account-1"))
    assert token.headers() == {"Authorization": "Bearer abc", "x-account-id": "account-1"}


def test_a_token_tells_when_it_ends_and_hides_its_value() -> None:
    token = read({"accessToken": "abc.def", "expires": 1614350382})
    assert token.expires_at.isoformat() == "2021-02-26T14:39:42+00:00"
    assert (token.expires_in(1614350380.5), token.expires_in(1614350999.0)) == (1, 0)
    assert token.fingerprint == hashlib.sha256(b"abc.def").hexdigest()
    assert "abc.def" not in repr(token)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["accessToken", "expires"]) | st.text(), inner),
    )
)
def test_any_answer_is_a_token_or_a_protocol_error(payload: object) -> None:
    try:
        token = read(payload)
    except UpstreamProtocol:
        return
    assert token.expires > NOW
    assert token.headers()["Authorization"].isascii()
    assert token.expires_at
