"""The emulator's access tokens: one use, thirty minutes, and the headers that go with them."""

from __future__ import annotations

import secrets

import pytest

from local.imburse import Fault, Imburse, ImburseKey
from local.imburse_errors import Refusal
from tests.imburse_rules import NOW, Clock, a_tenant_key, a_token, an_account_key, code_of, signed


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


def test_a_token_lists_what_its_key_reaches_once_and_is_then_refused(imburse: Imburse, tenant_key: ImburseKey) -> None:
    bearer = [f"Bearer {a_token(imburse, tenant_key)}"]

    assert imburse.me(bearer, "account-1", "tenant-1") == {
        "accounts": [{"accountId": "account-1"}],
        "tenants": [{"tenantId": "tenant-1", "accountId": "account-1"}],
    }
    with pytest.raises(Refusal) as refused:
        imburse.me(bearer, "account-1", "tenant-1")
    assert code_of(refused) == (401, "ACCESS_TOKEN_ALREADY_USED")


def test_the_token_of_an_account_key_reaches_every_tenant_of_the_account(
    imburse: Imburse, account_key: ImburseKey
) -> None:
    imburse.keys.add(ImburseKey("another", secrets.token_bytes(32), "account-1", "tenant-2"))
    imburse.keys.add(ImburseKey("elsewhere", secrets.token_bytes(32), "account-2", "tenant-3"))

    reached = imburse.me([f"Bearer {a_token(imburse, account_key)}"], "account-1", None)

    assert [tenant["tenantId"] for tenant in reached["tenants"]] == ["tenant-1", "tenant-2"]


@pytest.mark.parametrize(
    ("key_name", "account_id", "tenant_id", "expected"),
    [
        ("account-key", None, None, (400, "ACCOUNT_ID_IS_REQUIRED")),
        ("account-key", "account-2", None, (403, "ACCOUNT_ID_HAS_NO_ACCESS")),
        ("account-key", "account-1", "tenant-1", (400, "TENANT_ID_IS_NOT_EXPECTED")),
        ("tenant-key", None, "tenant-1", (400, "ACCOUNT_ID_IS_REQUIRED")),
        ("tenant-key", "account-1", None, (400, "TENANT_ID_IS_REQUIRED")),
        ("tenant-key", "account-1", "tenant-2", (403, "TENANT_ID_HAS_NO_ACCESS")),
        ("tenant-key", "account-1", "", (403, "TENANT_ID_HAS_NO_ACCESS")),
    ],
)
def test_the_headers_must_fit_the_key_and_the_token_is_spent_all_the_same(
    imburse: Imburse, key_name: str, account_id: str | None, tenant_id: str | None, expected: tuple[int, str]
) -> None:
    bearer = [f"Bearer {a_token(imburse, imburse.keys.require(key_name))}"]

    with pytest.raises(Refusal) as refused:
        imburse.me(bearer, account_id, tenant_id)
    assert code_of(refused) == expected
    with pytest.raises(Refusal) as refused:
        imburse.me(bearer, account_id, tenant_id)
    assert code_of(refused) == (401, "ACCESS_TOKEN_ALREADY_USED")


def test_a_token_lives_for_thirty_minutes(imburse: Imburse, clock: Clock, account_key: ImburseKey) -> None:
    first, second = (imburse.issue(account_key) for _ in range(2))
    assert first.expires == NOW + 1800

    clock.now = NOW + 1799
    imburse.me([f"Bearer {first.value}"], "account-1", None)
    clock.now = NOW + 1800
    with pytest.raises(Refusal) as refused:
        imburse.me([f"Bearer {second.value}"], "account-1", None)
    assert code_of(refused) == (401, "ACCESS_TOKEN_EXPIRED")


def test_a_token_of_a_key_revoked_since_is_refused(imburse: Imburse, tenant_key: ImburseKey) -> None:
    token = a_token(imburse, tenant_key)
    imburse.keys.revoke(tenant_key.public_key)

    with pytest.raises(Refusal) as refused:
        imburse.me([f"Bearer {token}"], "account-1", "tenant-1")
    assert code_of(refused) == (401, "API_KEY_REVOKED")


def test_a_token_of_another_emulator_or_an_altered_one_is_not_recognised(
    imburse: Imburse, account_key: ImburseKey
) -> None:
    foreign = Imburse([account_key], clock=Clock()).issue(account_key).value
    head, claims, signature = imburse.issue(account_key).value.split(".")
    for token in (foreign, f"{head}.{claims[:-2]}AA.{signature}", f"{head}.{claims}.{'A' * 43}"):
        with pytest.raises(Refusal) as refused:
            imburse.me([f"Bearer {token}"], "account-1", None)
        assert code_of(refused) == (401, "ACCESS_TOKEN_NOT_RECOGNISED")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer  a.b.c", "bearer a.b.c", "Bearer a.b", "Bearer é.b.c"])
def test_a_bearer_header_that_is_none_is_malformed(imburse: Imburse, header: str) -> None:
    with pytest.raises(Refusal) as refused:
        imburse.me([header], "account-1", None)
    assert code_of(refused) == (401, "ACCESS_TOKEN_IS_MALFORMED")


def test_no_bearer_header_is_missing(imburse: Imburse) -> None:
    with pytest.raises(Refusal) as refused:
        imburse.me([], "account-1", None)
    assert code_of(refused) == (401, "ACCESS_TOKEN_IS_REQUIRED")


def test_ten_thousand_tokens_differ_and_are_counted(imburse: Imburse, account_key: ImburseKey) -> None:
    tokens = {imburse.issue(account_key).value for _ in range(10_000)}

    assert len(tokens) == imburse.statistics.tokens_issued == imburse.statistics.tokens_distinct == 10_000


def test_the_same_token_twice_is_counted_as_one(imburse: Imburse, account_key: ImburseKey) -> None:
    first, again = imburse.issue(account_key), imburse.issue(account_key, same_again=True)

    assert again == first
    assert (imburse.statistics.tokens_issued, imburse.statistics.tokens_distinct) == (2, 1)


def test_a_reset_forgets_everything_but_the_keys(imburse: Imburse, tenant_key: ImburseKey) -> None:
    token = a_token(imburse, tenant_key)
    imburse.authenticate([signed(tenant_key, nonce="once")], b"")
    imburse.faults.add(Fault("clock", seconds=10_000))

    imburse.reset()

    assert imburse.statistics.as_json()["exchangeRequests"] == 0
    assert imburse.authenticate([signed(tenant_key, nonce="once")], b"") is tenant_key
    with pytest.raises(Refusal):
        imburse.me([f"Bearer {token}"], "account-1", "tenant-1")
