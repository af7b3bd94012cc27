"""Waking the refill: at most once in five seconds for a credential, and never at the cost of a vend."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import botocore.exceptions
import pytest

from imburse_auth import CredentialId
from imburse_auth.aws import Aws
from tests.fake_table import FakeTable
from tests.fakes import Clock, FakeLambda, aws_error
from tests.machine import ENVIRON
from vending.supply.waker import EVERY_SECONDS, LateLambda, Waker
from vending.table import TableUnavailable

TENANT_A = CredentialId("sandbox", "tenant-a")
TENANT_B = CredentialId("sandbox", "tenant-b")


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.table = FakeTable()
        self.lambda_ = FakeLambda()

    def waker(self) -> Waker:
        """The waker of one execution environment."""
        return Waker(self.table, self.lambda_, ENVIRON["REFILL_FUNCTION"], clock=self.clock)  # type: ignore[arg-type]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_refill_is_told_which_pool_runs_low(bench: Bench) -> None:
    assert bench.waker().wake(TENANT_A)
    assert bench.lambda_.invoked == [{"credential": "sandbox/tenant-a"}]


def test_one_environment_wakes_once_in_five_seconds_and_asks_the_table_once(bench: Bench) -> None:
    waker = bench.waker()
    assert [waker.wake(TENANT_A) for _ in range(10)].count(True) == 1
    assert bench.table.calls == ["lease"]
    bench.clock.now += EVERY_SECONDS
    assert waker.wake(TENANT_A)


def test_all_environments_together_wake_once_in_five_seconds(bench: Bench) -> None:
    wakers = [bench.waker() for _ in range(10)]
    assert [waker.wake(TENANT_A) for waker in wakers].count(True) == 1
    bench.clock.now += EVERY_SECONDS
    assert [waker.wake(TENANT_A) for waker in wakers].count(True) == 1
    assert len(bench.lambda_.invoked) == 2


def test_each_credential_has_its_own_five_seconds(bench: Bench) -> None:
    waker = bench.waker()
    assert (waker.wake(TENANT_A), waker.wake(TENANT_B)) == (True, True)


@pytest.mark.parametrize(
    "failure",
    [aws_error("TooManyRequestsException", 429), botocore.exceptions.ReadTimeoutError(endpoint_url="https://x.test")],
)
def test_a_lambda_that_fails_is_not_heard_of(bench: Bench, failure: Exception) -> None:
    bench.lambda_.failure = failure
    assert not bench.waker().wake(TENANT_A)


def test_a_table_that_fails_is_not_heard_of(bench: Bench) -> None:
    bench.table.failure = TableUnavailable("slow")
    assert not bench.waker().wake(TENANT_A)
    assert bench.lambda_.invoked == []


def test_a_client_gives_up_soon_and_tries_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from vending.supply.waker import lambda_client

    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, ENVIRON[name])
    config: Any = lambda_client(Aws()).meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (0.3, 0.3, 1)


class CountingAws:
    """Makes one fake Lambda client after the other."""

    def __init__(self) -> None:
        self.made: list[FakeLambda] = []

    def client(self, service: str, **_: object) -> FakeLambda:
        assert service == "lambda"
        time.sleep(0.01)  # so that threads would overtake each other here
        self.made.append(FakeLambda())
        return self.made[-1]


def test_the_client_is_made_when_a_pool_first_runs_low_and_once_for_all_threads(bench: Bench) -> None:
    aws = CountingAws()
    waker = Waker(bench.table, LateLambda(aws), ENVIRON["REFILL_FUNCTION"], clock=bench.clock)  # type: ignore[arg-type]
    assert aws.made == []
    credentials = [CredentialId("sandbox", f"tenant-{number}") for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(waker.wake, credentials))
    assert [len(client.invoked) for client in aws.made] == [16]
