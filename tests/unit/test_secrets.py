import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.exceptions
import pytest

from imburse_auth import ApiKey, CredentialId
from imburse_auth.errors import CredentialMisconfigured, CredentialNotFound, SecretsUnavailable, VendingError
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore
from tests.fakes import Clock, FakeSecretsManager, aws_error, secret

A = CredentialId("sandbox", "tenant-a")
B = CredentialId("sandbox", "tenant-b")
DOWN = [
    aws_error("InternalServiceError", 500),
    aws_error("SomethingNew", 503),
    aws_error("ThrottlingException"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="https://x.test"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="https://x.test"),
]
DECIDED = [aws_error("AccessDeniedException"), aws_error("DecryptionFailure"), aws_error("KMSDisabledException")]


class Bench:
    """A store on a fake Secrets Manager with one credential, on a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.aws = FakeSecretsManager()
        self.store = SecretStore(self.aws, monotonic=self.clock)  # type: ignore[arg-type]
        self.rotate()

    def rotate(self, name: str = "sandbox/tenant-a") -> ApiKey:
        members = secret()
        self.aws.put(name, members)
        return ApiKey.from_secret(json.dumps(members))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_key_is_read_once_in_five_minutes(bench: Bench) -> None:
    reads: list[None] = []
    first = bench.store.get(A, on_read=lambda: reads.append(None))
    second = bench.rotate()
    bench.clock.now += 299
    assert bench.store.get(A, on_read=lambda: reads.append(None)) == first
    bench.clock.now += 2
    assert bench.store.get(A, on_read=lambda: reads.append(None)) == second
    assert len(reads) == len(bench.aws.reads) == 2


def test_each_credential_is_cached_by_itself(bench: Bench) -> None:
    other = bench.rotate("sandbox/tenant-b")
    assert bench.store.get(A) != other
    assert bench.store.get(B) == other


def test_one_fetch_serves_all_threads_that_wait_for_it(bench: Bench) -> None:
    arrived = threading.Barrier(8 + 1)
    bench.aws.before_read = lambda: [arrived.wait(5)].clear()

    def get() -> ApiKey:
        if threading.current_thread() is not first:
            arrived.wait(5)
        return bench.store.get(A)

    keys: list[ApiKey] = []
    first = threading.Thread(target=lambda: keys.append(get()))
    with ThreadPoolExecutor(8) as pool:
        first.start()
        waiting = [pool.submit(get) for _ in range(8)]
        keys += [future.result(5) for future in waiting]
    first.join(5)
    assert len(keys) == 9
    assert len(set(keys)) == 1
    assert len(bench.aws.reads) == 1


def test_a_failed_fetch_is_told_to_all_and_then_forgotten(bench: Bench) -> None:
    bench.aws.failure = aws_error("InternalServiceError", 500)
    with pytest.raises(SecretsUnavailable):
        bench.store.get(A)
    bench.aws.failure = None
    assert bench.store.get(A)


@pytest.mark.parametrize("failure", DOWN, ids=lambda failure: type(failure).__name__)
def test_while_secrets_manager_is_down_a_stale_key_serves_for_an_hour(bench: Bench, failure: Exception) -> None:
    key = bench.store.get(A)
    bench.aws.failure = failure
    for seconds in (301, 1000, 2000):
        bench.clock.now += seconds
        assert bench.store.get(A) == key
    bench.clock.now += 300
    with pytest.raises(SecretsUnavailable):
        bench.store.get(A)


def test_a_stale_key_does_not_outlive_its_hour_by_the_pause_between_two_questions(bench: Bench) -> None:
    bench.store.get(A)
    bench.aws.failure = aws_error("InternalServiceError", 500)
    bench.clock.now += 3599
    assert bench.store.get(A)
    bench.clock.now += 2
    with pytest.raises(SecretsUnavailable):
        bench.store.get(A)


def test_no_read_is_begun_that_the_deadline_would_cut_off(bench: Bench) -> None:
    with pytest.raises(SecretsUnavailable, match="no time"):
        bench.store.get(A, deadline=Deadline.after(5, bench.clock))
    assert bench.aws.reads == []
    key = bench.store.get(A, deadline=Deadline.after(10, bench.clock))
    with pytest.raises(SecretsUnavailable, match="no time"):
        bench.store.reread(A, key, deadline=Deadline.after(5, bench.clock))
    bench.clock.now += 301
    assert bench.store.get(A, deadline=Deadline.after(5, bench.clock)) == key, "the stale one is better than none"


def test_while_it_is_down_it_is_asked_every_ten_seconds_only(bench: Bench) -> None:
    bench.store.get(A)
    bench.aws.failure = aws_error("InternalServiceError", 500)
    bench.clock.now += 301
    for _ in range(100):
        bench.store.get(A)
    assert len(bench.aws.reads) == 2
    bench.aws.failure = None
    key = bench.rotate()
    bench.clock.now += 11
    assert bench.store.get(A) == key


@pytest.mark.parametrize("failure", DECIDED, ids=lambda failure: failure.response["Error"]["Code"])
def test_a_refusal_that_somebody_decided_is_not_undone_by_a_stale_key(bench: Bench, failure: Exception) -> None:
    bench.store.get(A)
    bench.aws.failure = failure
    bench.clock.now += 301
    with pytest.raises(SecretsUnavailable):
        bench.store.get(A)
    bench.aws.failure = aws_error("InternalServiceError", 500)
    with pytest.raises(SecretsUnavailable):
        bench.store.get(A)


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "InvalidRequestException"])
def test_a_secret_that_is_not_there_or_marked_for_deletion_is_not_found(bench: Bench, code: str) -> None:
    bench.store.get(A)
    bench.aws.failure = aws_error(code)
    bench.clock.now += 301
    with pytest.raises(CredentialNotFound):
        bench.store.get(A)


def test_a_secret_that_turned_bad_is_misconfigured_and_not_papered_over(bench: Bench) -> None:
    bench.store.get(A)
    bench.aws.put("sandbox/tenant-a", "{}")
    bench.clock.now += 301
    with pytest.raises(CredentialMisconfigured):
        bench.store.get(A)


def test_a_binary_secret_is_misconfigured(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.aws, "get_secret_value", lambda **_: {"SecretBinary": b"x"})
    with pytest.raises(CredentialMisconfigured, match="binary"):
        bench.store.get(A)


def test_a_refused_key_is_read_past_the_cache(bench: Bench) -> None:
    old = bench.store.get(A)
    new = bench.rotate()
    assert bench.store.reread(A, old) == new, "also right after the old one was read"
    assert bench.store.get(A) == new


def test_threads_that_are_refused_together_share_one_read(bench: Bench) -> None:
    old = bench.store.get(A)
    new = bench.rotate()
    for _ in range(5):
        assert bench.store.reread(A, old) == new
    assert len(bench.aws.reads) == 2
    assert bench.store.reread(A, new) == new
    assert len(bench.aws.reads) == 3


def test_a_stale_key_is_no_answer_to_a_refused_one(bench: Bench) -> None:
    old = bench.store.get(A)
    bench.clock.now += 2
    bench.aws.failure = aws_error("InternalServiceError", 500)
    with pytest.raises(SecretsUnavailable):
        bench.store.reread(A, old)


def test_no_error_shows_a_value(bench: Bench) -> None:
    members: dict[str, Any] = secret(privateKey="not base64 at all")
    bench.aws.put("sandbox/tenant-a", members)
    with pytest.raises(VendingError) as caught:
        bench.store.get(A)
    assert "not base64 at all" not in f"{caught.value!r}{caught.value.__context__!r}"
