import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from imburse_auth import ApiKey, CredentialId
from imburse_auth.access_token import AccessToken
from imburse_auth.errors import UpstreamRejected, UpstreamThrottled, UpstreamUnavailable, VendingError
from tests.fake_table import FakeTable
from tests.fakes import BASE_URL, Clock, private_key
from vending.supply.inline import Supplied
from vending.supply.shared import JUST_MADE_SECONDS, LEASE_SECONDS, RECHECK_SECONDS, WAIT_SECONDS, Shared
from vending.table import TableUnavailable

TENANT_A, TENANT_B = CredentialId("sandbox", "tenant-a"), CredentialId("sandbox", "tenant-b")
KEY = ApiKey("public-1", private_key(), "account-1", "tenant-a", reuse="shared")
LIFE = 1800


class Bench:
    """Several environments on one table, and an Imburse that numbers its tokens."""

    def __init__(self) -> None:
        self.table = FakeTable()
        self.clock = Clock()
        self.exchanges = 0
        self.failure: VendingError | None = None
        self.while_exchanging: Callable[[], None] = lambda: None
        self.unavailable: list[None] = []
        self._lock = threading.Lock()
        self.here, self.elsewhere = self.environment(), self.environment()

    def environment(self) -> Shared:
        return Shared(
            self.table,
            clock=self.clock,
            monotonic=self.clock,
            sleep=self.clock.sleep,
            on_unavailable=lambda: self.unavailable.append(None),
        )

    def exchange(self) -> Supplied:
        with self._lock:
            self.exchanges += 1
            number = self.exchanges
        self.while_exchanging()
        if self.failure is not None:
            raise self.failure
        token = AccessToken(f"token-{number}", int(self.clock()) + LIFE, KEY.account_id, KEY.tenant_id)
        return Supplied(token, BASE_URL, f"correlation-{number}")

    def token(self, shared: Shared | None = None, *, key: ApiKey = KEY, least_seconds: int = 0) -> str:
        supplied = (shared or self.here).token(TENANT_A, key, self.exchange, least_seconds=least_seconds)
        assert supplied.source == "shared"
        return supplied.token.value

    def down(self) -> None:
        self.table.failure = TableUnavailable("ReadTimeoutError")

    def up(self) -> None:
        self.table.failure = None

    def lease_of_somebody_else(self, seconds: float = LEASE_SECONDS) -> int:
        now = self.clock()
        fence = self.table.lease(
            f"lease#share#{TENANT_A}", "lease", now_ms=int(now * 1000), until_ms=int((now + seconds) * 1000), ttl=0
        )
        assert fence is not None
        return fence


@pytest.fixture
def bench() -> Bench:
    return Bench()


# One token for all


def test_one_token_serves_all_callers_in_all_environments(bench: Bench) -> None:
    assert {bench.token(shared) for shared in (bench.here, bench.elsewhere, bench.environment()) for _ in range(5)} == {
        "token-1"
    }
    assert bench.exchanges == 1


def test_it_comes_with_all_that_belongs_to_it_out_of_the_table_too(bench: Bench) -> None:
    made = bench.here.token(TENANT_A, KEY, bench.exchange)
    read = bench.elsewhere.token(TENANT_A, KEY, bench.exchange)
    assert read == made
    assert read.token.headers() == {
        "Authorization": "Bearer token-1",
        "x-account-id": "account-1",
        "x-tenant-id": "tenant-a",
    }
    assert (read.base_url, read.correlation_id, read.token.expires) == (BASE_URL, "correlation-1", 1614351800)


def test_the_item_is_dropped_when_the_token_is_dead(bench: Bench) -> None:
    bench.token()
    (item,) = bench.table.partition(f"shared#{TENANT_A}")
    assert item["ttl"] == item["dies"] == item["expires"]
    assert (item["public_key"], item["fence"]) == ("public-1", 1)


def test_no_table_is_asked_while_memory_is_fresh(bench: Bench) -> None:
    bench.token()
    bench.table.calls.clear()
    bench.clock.now += RECHECK_SECONDS - 1
    bench.token()
    assert bench.table.calls == []
    bench.clock.now += 1
    bench.token()
    assert bench.table.calls == ["get"]


def test_until_a_quarter_of_its_life_is_left(bench: Bench) -> None:
    bench.token()
    bench.clock.now += LIFE * 3 / 4 - 1
    assert bench.token() == bench.token(bench.elsewhere) == "token-1"
    bench.clock.now += 1
    assert bench.token() == bench.token(bench.elsewhere) == "token-2"
    assert bench.exchanges == 2


@pytest.mark.parametrize("offset", [-600, 600])
def test_its_life_is_counted_by_the_clock_that_ends_it(bench: Bench, offset: int) -> None:
    def exchange() -> Supplied:
        bench.exchanges += 1
        expires = int(bench.clock()) + offset + LIFE
        return Supplied(AccessToken(f"token-{bench.exchanges}", expires, KEY.account_id, KEY.tenant_id), BASE_URL, None)

    knows = Shared(bench.table, clock=bench.clock, now=lambda _: bench.clock() + offset)
    for seconds, token in ((0, "token-1"), (LIFE * 3 / 4 - 1, "token-1"), (1, "token-2")):
        bench.clock.now += seconds
        # Who has not exchanged yet does not know how far that clock is from ours.
        for shared in (knows, bench.elsewhere):
            assert shared.token(TENANT_A, KEY, exchange).token.value == token


def test_credentials_share_nothing(bench: Bench) -> None:
    bench.token()
    assert bench.here.token(TENANT_B, KEY, bench.exchange).token.value == "token-2"


def test_a_token_of_another_key_or_account_serves_nobody(bench: Bench) -> None:
    bench.token()
    rotated = ApiKey("public-2", private_key(), "account-1", "tenant-a")
    assert bench.token(key=rotated) == bench.token(bench.elsewhere, key=rotated) == "token-2"
    moved = ApiKey("public-2", private_key(), "account-1", "tenant-b")
    assert bench.token(key=moved) == "token-3"


def test_a_token_for_another_host_serves_nobody(bench: Bench) -> None:
    bench.token()
    for shared in (bench.here, bench.elsewhere):
        supplied = shared.token(TENANT_A, KEY, bench.exchange, base_url=BASE_URL)
        assert supplied.token.value == "token-1"
    assert bench.here.token(TENANT_A, KEY, bench.exchange, base_url="https://other.test").token.value == "token-2"


def test_who_wants_it_to_live_longer_gets_a_new_one_and_so_do_all(bench: Bench) -> None:
    bench.token()
    bench.clock.now += 400
    assert bench.token(least_seconds=1400) == "token-1"
    assert bench.token(least_seconds=1401) == "token-2"
    bench.clock.now += RECHECK_SECONDS
    assert bench.token(bench.elsewhere) == "token-2"


def test_a_token_that_was_just_made_is_as_good_as_it_gets(bench: Bench) -> None:
    for _ in range(20):
        assert bench.token(least_seconds=10_000) == "token-1"
        bench.clock.now += 2
    bench.clock.now += JUST_MADE_SECONDS
    assert bench.token(least_seconds=10_000) == "token-2"


def test_what_another_version_wrote_is_as_good_as_nothing(bench: Bench) -> None:
    bench.table.put({"pk": f"shared#{TENANT_A}", "sk": "token", "token": "x", "expires": 1614351800})
    assert bench.token() == "token-1"


# One exchange for the fleet


def test_who_waits_gets_what_the_holder_of_the_lease_made(bench: Bench) -> None:
    bench.here.token(TENANT_B, KEY, bench.exchange)
    (item,) = bench.table.partition(f"shared#{TENANT_B}")
    bench.lease_of_somebody_else()

    def holder_is_done(_: float) -> None:
        bench.table.put(item | {"pk": f"shared#{TENANT_A}"})

    waiting = Shared(bench.table, clock=bench.clock, monotonic=bench.clock, sleep=holder_is_done)
    assert bench.token(waiting) == "token-1"
    assert bench.exchanges == 1


def test_a_fleet_that_starts_at_once_exchanges_once() -> None:
    bench = Bench()
    all_here = threading.Barrier(16, timeout=10)

    def environment(_: int) -> str:
        shared = Shared(bench.table, clock=bench.clock, jitter=lambda low, high: low / 10)
        all_here.wait()
        return bench.token(shared)

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(environment, range(16))) == {"token-1"}
    assert bench.exchanges == 1


def test_who_waited_two_seconds_exchanges_alone_and_keeps_it_out_of_the_table(bench: Bench) -> None:
    bench.lease_of_somebody_else()
    before = bench.clock()
    assert bench.token() == "token-1"
    assert WAIT_SECONDS - 0.25 <= bench.clock() - before <= WAIT_SECONDS
    assert all(0.05 <= pause <= 0.25 for pause in bench.clock.slept)
    assert len(set(bench.clock.slept)) > 1
    assert bench.table.partition(f"shared#{TENANT_A}") == []
    assert bench.token() == "token-1"


def test_the_lease_of_a_holder_that_died_runs_out(bench: Bench) -> None:
    bench.lease_of_somebody_else()
    bench.clock.now += LEASE_SECONDS
    assert bench.token() == bench.token(bench.elsewhere) == "token-1"
    assert bench.clock.slept == []


def test_a_holder_whose_lease_ran_out_does_not_overwrite_the_newer_token(bench: Bench) -> None:
    def overtaken() -> None:
        bench.while_exchanging = lambda: None
        bench.clock.now += LEASE_SECONDS
        assert bench.token(bench.elsewhere) == "token-2"

    bench.while_exchanging = overtaken
    assert bench.token(bench.here) == "token-1"  # its own caller still gets what was exchanged for it
    (item,) = bench.table.partition(f"shared#{TENANT_A}")
    assert (item["token"], item["fence"]) == ("token-2", 2)
    bench.clock.now += RECHECK_SECONDS
    assert bench.token(bench.here) == "token-2"


def test_the_lease_is_given_back_when_the_token_is_there_and_when_it_fails(bench: Bench) -> None:
    bench.token()
    assert bench.lease_of_somebody_else(seconds=0) == 2
    bench.failure = UpstreamRejected("no")
    with pytest.raises(UpstreamRejected):
        bench.here.token(TENANT_B, KEY, bench.exchange)
    bench.failure = None
    assert bench.elsewhere.token(TENANT_B, KEY, bench.exchange).token.value == "token-3"
    assert bench.clock.slept == []


@pytest.mark.parametrize("failure", [UpstreamRejected("no"), UpstreamThrottled("no"), UpstreamUnavailable("no")])
def test_what_the_exchange_raises_is_raised_and_nothing_kept(bench: Bench, failure: VendingError) -> None:
    bench.failure = failure
    with pytest.raises(type(failure)):
        bench.token()
    assert bench.exchanges == 1
    bench.failure = None
    assert bench.token() == "token-2"


# Imburse is down


@pytest.mark.parametrize("failure", [UpstreamThrottled("no"), UpstreamUnavailable("no")])
def test_an_old_token_serves_on_while_imburse_does_not_answer(bench: Bench, failure: VendingError) -> None:
    bench.token()
    bench.clock.now += LIFE - 100
    bench.failure = failure
    assert bench.token() == bench.token(bench.elsewhere) == "token-1"
    with pytest.raises(type(failure)):
        bench.token(least_seconds=100)
    bench.clock.now += 100
    with pytest.raises(type(failure)):
        bench.token()


def test_an_old_token_does_not_serve_on_when_the_key_is_refused(bench: Bench) -> None:
    bench.token()
    bench.clock.now += LIFE - 100
    bench.failure = UpstreamRejected("no")
    with pytest.raises(UpstreamRejected):
        bench.token()


def test_a_purged_token_does_not_serve_on_either(bench: Bench) -> None:
    bench.token()
    bench.token(bench.elsewhere)
    bench.here.purge(TENANT_A)
    bench.clock.now += RECHECK_SECONDS
    bench.failure = UpstreamUnavailable("no")
    with pytest.raises(UpstreamUnavailable):
        bench.token(bench.elsewhere)


# The table is down


def test_without_a_table_each_environment_exchanges_for_itself_and_once(bench: Bench) -> None:
    bench.down()
    assert [bench.token(), bench.token(bench.elsewhere)] == ["token-1", "token-2"]
    for _ in range(10):
        bench.clock.now += RECHECK_SECONDS
        assert [bench.token(), bench.token(bench.elsewhere)] == ["token-1", "token-2"]
    assert bench.exchanges == 2
    assert bench.unavailable


def test_without_a_table_and_without_imburse_an_old_token_serves_on_from_memory(bench: Bench) -> None:
    bench.token()
    bench.clock.now += LIFE - 100
    bench.down()
    bench.failure = UpstreamUnavailable("no")
    assert bench.token() == "token-1"
    with pytest.raises(UpstreamUnavailable):
        bench.token(bench.elsewhere)


def test_a_table_that_is_back_brings_them_together(bench: Bench) -> None:
    bench.down()
    bench.token()
    bench.token(bench.elsewhere)
    bench.up()
    bench.clock.now += RECHECK_SECONDS
    assert bench.token() == bench.token(bench.elsewhere)


def test_a_table_that_is_down_is_asked_once_in_five_seconds(bench: Bench) -> None:
    bench.token()
    bench.down()
    bench.clock.now += RECHECK_SECONDS
    bench.table.calls.clear()
    for _ in range(10):
        bench.token()
    assert bench.table.calls == ["get"]


@pytest.mark.parametrize("operation", ["get", "lease", "hold", "put"])
def test_no_single_failing_operation_fails_a_vend_or_costs_a_second_exchange(bench: Bench, operation: str) -> None:
    def fails(name: str) -> None:
        if name == operation:
            raise TableUnavailable("InternalServerError")

    bench.table.before = fails
    assert bench.token() == "token-1"
    assert bench.exchanges == 1
    assert bench.unavailable


def test_nothing_is_asked_while_it_is_made(bench: Bench) -> None:
    bench.environment()
    assert bench.table.calls == []


# Purged


def test_a_purge_throws_away_here_at_once_and_elsewhere_within_five_seconds(bench: Bench) -> None:
    bench.token()
    bench.token(bench.elsewhere)
    assert bench.here.purge(TENANT_A) == 1
    assert bench.here.purge(TENANT_A) == 0
    assert bench.token() == "token-2"
    bench.clock.now += RECHECK_SECONDS
    assert bench.token(bench.elsewhere) == "token-2"


def test_a_purge_says_when_the_table_cannot_be_reached(bench: Bench) -> None:
    bench.token()
    bench.down()
    with pytest.raises(TableUnavailable):
        bench.here.purge(TENANT_A)
    assert bench.token() == "token-2"  # what was in memory is gone nevertheless


def test_no_token_is_in_a_repr(bench: Bench) -> None:
    supplied = bench.here.token(TENANT_A, KEY, bench.exchange)
    assert "token-1" not in repr(supplied)
    assert "token-1" not in repr(bench.here._memory)
