"""When a role's AWS credentials are read: not while a client is made, where the runtime gives them out at an address."""

import time
from typing import Any

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ConnectTimeoutError, CredentialRetrievalError, MetadataRetrievalError
from botocore.httpsession import URLLib3Session
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


GIVEN = {"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}


class Runtime:
    """What gives credentials out; it fails, or answers what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Any = MetadataRetrievalError(error_msg="no answer; secret-in-the-text")
        self.asked = 0
        self.now = 1_800_000_000.0
        monkeypatch.setattr(ContainerMetadataFetcher, "retrieve_full_uri", self._ask)
        self.found = LateCredentials(
            Chain(), {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ADDRESS}, clock=lambda: self.now
        ).load_credentials()

    def _ask(self, *_: object, **__: object) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    return Runtime(monkeypatch)


@pytest.mark.parametrize(
    "answer",
    [
        MetadataRetrievalError(error_msg="no answer; secret-in-the-text"),
        {"Code": "x"},
        [],
        None,
        GIVEN | {"Expiration": "soon"},
        GIVEN | {"Expiration": None},
        GIVEN | {"Expiration": "2020-01-01T00:00:00Z"},
        GIVEN | {"Expiration": "2999-01-01T00:00:00"},
        GIVEN | {"Expiration": 10**400},
    ],
)
def test_whatever_comes_instead_of_credentials_is_an_error_of_botocores_that_quotes_nothing(
    runtime: Runtime, answer: Any
) -> None:
    runtime.answer = answer
    with pytest.raises(CredentialRetrievalError) as caught:
        runtime.found.get_frozen_credentials()
    assert "secret-in-the-text" not in str(caught.value)


def test_after_a_failure_nobody_asks_for_a_second(runtime: Runtime) -> None:
    for _ in range(5):
        with pytest.raises(CredentialRetrievalError):
            runtime.found.get_frozen_credentials()
    assert runtime.asked == 1
    runtime.answer = GIVEN
    runtime.now += 0.9
    with pytest.raises(CredentialRetrievalError):
        runtime.found.get_frozen_credentials()
    runtime.now += 0.1
    assert runtime.found.get_frozen_credentials().access_key == "a"


def test_a_clock_that_was_set_back_after_a_failure_keeps_nobody_from_asking(runtime: Runtime) -> None:
    with pytest.raises(CredentialRetrievalError):
        runtime.found.get_frozen_credentials()
    runtime.answer = GIVEN
    runtime.now -= 3600
    assert runtime.found.get_frozen_credentials().access_key == "a"


def test_the_runtime_is_waited_for_less_than_a_third_of_a_second_a_try_and_not_slept_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    def send(self: URLLib3Session, _: object) -> None:
        waited.append(vars(self)["_timeout"])
        raise ConnectTimeoutError(endpoint_url=ADDRESS)

    monkeypatch.setattr(URLLib3Session, "send", send)
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds))
    found = LateCredentials(Chain(), {"AWS_CONTAINER_CREDENTIALS_FULL_URI": ADDRESS}).load_credentials()
    with pytest.raises(CredentialRetrievalError):
        found.get_frozen_credentials()
    assert waited == [0.3, 0.3, 0.3]
