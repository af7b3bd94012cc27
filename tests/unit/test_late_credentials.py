"""When a role's AWS credentials are read: not while a client is made, where the runtime gives them out at an address."""

from typing import Any

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import MetadataRetrievalError
from botocore.utils import ContainerMetadataFetcher

from imburse_auth.late_credentials import LateCredentials

ADDRESS = "http://127.0.0.1:9/credentials"


class Chain:
    def load_credentials(self) -> Any:
        return Credentials("from", "the-chain")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the runtime was asked, and with which headers."""
    requests: list[Any] = []

    def answer(_: object, url: str, headers: dict[str, str] | None = None) -> dict[str, str]:
        requests.append((url, headers))
        number = str(len(requests))
        return {"AccessKeyId": number, "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}

    monkeypatch.setattr(ContainerMetadataFetcher, "retrieve_full_uri", answer)
    return requests


@pytest.mark.parametrize("environ", [{}, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ADDRESS, "AWS_ACCESS_KEY_ID": "first"}])
def test_without_snapstart_the_chain_is_asked_at_once(asked: list[Any], environ: dict[str, str]) -> None:
    assert LateCredentials(Chain(), environ).load_credentials().access_key == "from"
    assert asked == []


def test_with_snapstart_the_runtime_is_asked_when_they_are_used_and_once(asked: list[Any]) -> None:
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ADDRESS}
    found = LateCredentials(Chain(), environ).load_credentials()
    assert asked == []
    environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "of-today"  # what a restored environment is told
    for _ in range(3):
        frozen = found.get_frozen_credentials()
        assert (frozen.access_key, frozen.secret_key, frozen.token) == ("1", "s", "t")
    assert asked == [(ADDRESS, {"Authorization": "of-today"})]


def test_no_authorization_is_sent_where_none_is_given(asked: list[Any]) -> None:
    LateCredentials(
        Chain(), {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ADDRESS}
    ).load_credentials().get_frozen_credentials()
    assert asked == [(ADDRESS, None)]


def test_a_runtime_that_does_not_answer_is_an_error_of_botocores(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MetadataRetrievalError(error_msg="refused")

    monkeypatch.setattr(ContainerMetadataFetcher, "retrieve_full_uri", fail)
    found = LateCredentials(Chain(), {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ADDRESS}).load_credentials()
    with pytest.raises(MetadataRetrievalError):
        found.get_frozen_credentials()
