from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth import CredentialId


def test_an_id_names_its_secret() -> None:
    credential = CredentialId.parse("sandbox/tenant-a")
    assert (credential.environment, credential.name, str(credential)) == ("sandbox", "tenant-a", "sandbox/tenant-a")
    assert credential.secret_name == "imburse/sandbox/tenant-a"


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "sandbox", "sandbox/", "/tenant-a", "sandbox/tenant-a/", "sandbox/tenant-a/x", "sandbox//tenant-a",
        "../sandbox", "sandbox/..", "./a", "sandbox/.", "sandbox/a..b", "sandbox/-a", "sandbox/a-", "sandbox/%2e%2e",
        "sandbox/tenant a", " sandbox/tenant-a", "sandbox/tenant-a\n", "sandbox/tenant-a\x00", "sandbox\\tenant-a",
        "sandbox/tenаnt-a",  # the а is Cyrillic
        "sandbox/ｔenant-a", "sandbox/ten\u200bant", "sandbox/*", 'sandbox/a"', "x" * 65 + "/a", None, 7, ["sandbox/a"], {},
    ],
)  # fmt: skip
def test_anything_else_is_refused_without_being_repeated(text: Any) -> None:
    with pytest.raises(ValueError, match=r"^credential") as caught:
        CredentialId.parse(text)
    assert not (isinstance(text, str) and len(text) > 8 and text in str(caught.value))


@given(st.text())
def test_what_parses_is_itself_again_and_plain(text: str) -> None:
    try:
        credential = CredentialId.parse(text)
    except ValueError:
        return
    assert str(credential) == text
    assert text.isascii()
    assert text.isprintable()


@given(st.from_regex(r"[A-Za-z0-9]{1,64}/[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?", fullmatch=True))
def test_plain_ids_parse(text: str) -> None:
    assert str(CredentialId.parse(text)) == text


def test_case_is_kept_apart() -> None:
    assert CredentialId.parse("sandbox/Tenant-A") != CredentialId.parse("sandbox/tenant-a")
