"""The fault matrix: each call to the table and each answer of Imburse failing in each way, at each step of a vend, at both doors.

Whatever fails: no vend fails because of the pool, no token is handed out twice, and each that is handed out is in its audit record.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import pytest
import requests

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.exchange import Exchange
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from imburse_auth.secrets import SecretStore
from tests.fake_table import FakeTable
from tests.fakes import BASE_URL, Answered, FakeImburse, aws_error, secret
from tests.machine import Machine, api_event
from vending.access.brake import Brake
from vending.supply.backoff import Backoff
from vending.supply.pool import Pool, Pooled
from vending.supply.refill import LEAST_SECONDS, Filled, Refill
from vending.table import Item, TableUnavailable

CREDENTIAL = CredentialId("sandbox", "tenant-a")
POLICY = '@id("everybody") @budget("1000/minute") permit (principal, action == Action::"vend", resource);'
POOLED = 6

T = TypeVar("T")
How = Literal["refused", "lost"]  # it did not happen; or it did, and the answer was lost


class FaultyTable(FakeTable):
    """A table of which one step, an operation on items of one kind, fails in one way while `faults` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[tuple[str, str], How] = {}
        self.hit: list[tuple[str, str]] = []
        self.hang: threading.Event | None = None
        self.hangs: tuple[str, ...] = ()

    def get(self, pk: str, sk: str) -> Item | None:
        return self._step("get", pk, lambda: FakeTable.get(self, pk, sk))

    def query(self, pk: str, **options: Any) -> list[Item]:
        return self._step("query", pk, lambda: FakeTable.query(self, pk, **options))

    def put(self, item: Item) -> None:
        self._step("put", str(item["pk"]), lambda: FakeTable.put(self, item))

    def take(self, pk: str, sk: str) -> Item | None:
        return self._step("take", pk, lambda: FakeTable.take(self, pk, sk))

    def add(self, pk: str, sk: str, amount: int, **options: Any) -> int | None:
        return self._step("add", pk, lambda: FakeTable.add(self, pk, sk, amount, **options))

    def lease(self, pk: str, sk: str, **options: Any) -> int | None:
        return self._step("lease", pk, lambda: FakeTable.lease(self, pk, sk, **options))

    def hold(self, pk: str, sk: str, **options: Any) -> bool:
        return self._step("hold", pk, lambda: FakeTable.hold(self, pk, sk, **options))

    def delete(self, pk: str, sk: str) -> None:
        self._step("delete", pk, lambda: FakeTable.delete(self, pk, sk))

    def _step(self, operation: str, pk: str, work: Callable[[], T]) -> T:
        kind = pk.rpartition("#")[0] if pk.startswith("lease#") else pk.partition("#")[0]
        if self.hang is not None and kind in self.hangs:
            self.hang.wait(60)
            raise TableUnavailable("hung")
        how = self.faults.get((operation, kind)) or self.faults.get(("any", "any"))
        if how is not None:
            self.hit.append((operation, kind))
        if how == "refused":
            raise TableUnavailable("ThrottlingException")
        answer = work()
        if how == "lost":
            raise TableUnavailable("ReadTimeoutError")
        return answer


class House(Machine):
    """A machine with a pool of six tokens behind both doors."""

    table: FaultyTable

    def __init__(self, *, pooled: int = POOLED, **members: Any) -> None:
        super().__init__(policy=POLICY, table=FaultyTable())
        self.members = secret(poolMin=POOLED, poolMax=100) | members
        self.imburse.accept(self.members)
        self.aws.put(str(CREDENTIAL), self.members)
        self.key = ApiKey.from_secret(json.dumps(self.members))
        self.pool = Pool(self.table, clock=self.clock)
        self.in_pool = [f"pooled-{number}" for number in range(pooled)]
        for value in self.in_pool:
            self.put(value)
        self.handed_out: list[str] = []

    def put(self, value: str, *, life_seconds: int = 1700, public_key: str | None = None) -> None:
        token = AccessToken(value, int(self.clock()) + life_seconds, "account-1", "tenant-a")
        self.pool.put(CREDENTIAL, Pooled(token, BASE_URL, public_key or self.members["publicKey"], None))

    def vend(self, door: str, count: int = 1, **more: Any) -> list[str] | str:
        """The values of the tokens that came, or the code of the error; checked against the audit record of the visit."""
        try:
            if door == "invoke":
                answer = self.invoke({"credential": str(CREDENTIAL), "count": count, **more})
            else:
                body = json.dumps({**({"count": count} if count > 1 else {}), **more})
                response = self.api(api_event("tokens" if count > 1 else "token", body=body))
                answer = json.loads(response["body"])
                if response["statusCode"] != 200:
                    raise RuntimeError(response["body"])
        except Exception as exc:  # noqa: BLE001 - what a caller gets
            assert "tokens" not in self.audit[-1]
            return str(json.loads(str(exc))["type"]).rsplit(":", 1)[-1]
        values = [token["accessToken"] for token in answer.get("tokens", [answer])]
        recorded = [token["sha256"] for token in self.audit[-1]["tokens"]]
        assert recorded == [hashlib.sha256(value.encode()).hexdigest() for value in values]
        self.handed_out += values
        return values

    def sources(self) -> list[str]:
        return [token["source"] for token in self.audit[-1]["tokens"]]

    def drain(self) -> None:
        """Claim all that is left after the faults are over, and prove that nothing was handed out twice in all."""
        self.table.faults.clear()
        left = len(self.table.partition(f"pool#{CREDENTIAL}"))
        claimed: list[Pooled] = []
        self.pool.claim_many(CREDENTIAL, self.key, left + 1, least_seconds=0, on_claim=claimed.append)
        self.handed_out += [pooled.token.value for pooled in claimed]
        assert len(set(self.handed_out)) == len(self.handed_out), "a token was handed out twice"
        assert self.table.partition(f"pool#{CREDENTIAL}") == []


doors = pytest.mark.parametrize("door", ["api", "invoke"])
counts = pytest.mark.parametrize("count", [1, 4])
hows = pytest.mark.parametrize("how", ["refused", "lost"])

# Every call that a vend from the pool may make to the table, in its order.
STEPS = [
    ("query", "brake"),
    ("add", "budget"),
    ("query", "pool"),
    ("take", "pool"),
    ("add", "demand"),
    ("add", "level"),
    ("lease", "wake"),
    ("any", "any"),
]
STOPS_THE_CLAIM = [("query", "pool"), ("take", "pool"), ("any", "any")]
steps = pytest.mark.parametrize("step", STEPS, ids=" ".join)


# How Imburse fails, and what a caller then sees if nothing else gives a token.
UPSTREAM: dict[str, tuple[Callable[[FakeImburse], Answered | Exception], str]] = {
    "down": (lambda i: requests.ConnectionError("refused"), "upstream_unavailable"),
    "silent": (lambda i: requests.ReadTimeout("..."), "upstream_unavailable"),
    "broken": (lambda i: i.refuse(500), "upstream_unavailable"),
    "overloaded": (lambda i: i.refuse(503, retry_after="2"), "upstream_unavailable"),
    "throttling": (lambda i: i.refuse(429), "upstream_throttled"),
    "refusing the key": (lambda i: i.refuse(401), "upstream_rejected"),
    "refusing the request": (lambda i: i.refuse(400), "upstream_rejected"),
    "a page": (lambda i: i.answer(b"<html>"), "upstream_protocol"),
    "no token": (lambda i: i.answer({"expires": 1}), "upstream_protocol"),
    "expired": (lambda i: i.answer({"accessToken": "t", "expires": 1}), "upstream_protocol"),
    "elsewhere": (lambda i: i.answer({}, 302, location="https://evil.test"), "upstream_protocol"),
}
upstream = pytest.mark.parametrize("fails", UPSTREAM)


def fail_upstream(house: House, fails: str) -> str:
    answer, code = UPSTREAM[fails]
    house.imburse.always = lambda _: answer(house.imburse)
    return code


# The table fails, Imburse does not: every vend succeeds


@doors
@counts
@hows
@steps
def test_no_vend_fails_because_of_the_table(step: tuple[str, str], how: How, count: int, door: str) -> None:
    house = House()
    house.table.faults[step] = how
    for _ in range(2):
        values = house.vend(door, count)
        assert isinstance(values, list), values
        assert len(values) == count
        expected = {"exchange"} if step in STOPS_THE_CLAIM else {"pool"} if count == 1 else {"pool", "exchange"}
        assert set(house.sources()) <= expected
    house.drain()


@doors
@hows
@pytest.mark.parametrize(
    ("step", "sources"),
    [
        (("query", "pool"), ["pool", "pool"]),  # what the vend before saw there does for these
        (("take", "pool"), ["exchange", "exchange"]),
        (("any", "any"), ["exchange", "exchange"]),
    ],
    ids=str,
)
def test_no_vend_fails_because_of_a_table_that_fails_after_a_look_at_the_pool(
    step: tuple[str, str], sources: list[str], how: How, door: str
) -> None:
    house = House()
    house.vend(door)
    house.table.faults[step] = how
    got: list[str] = []
    for _ in range(2):
        assert len(house.vend(door)) == 1
        got += house.sources()
    assert got == sources
    assert house.table.hit or step == ("query", "pool")
    left = len(house.table.partition(f"pool#{CREDENTIAL}"))
    gone_unseen = POOLED - 1 - sources.count("pool") - left
    assert gone_unseen == (0 if how == "refused" else {"query": 0, "take": 2, "any": 1}[step[0]])
    house.drain()


@doors
@hows
@steps
def test_no_vend_fails_because_of_the_table_when_the_pool_is_empty(step: tuple[str, str], how: How, door: str) -> None:
    house = House(pooled=0)
    house.table.faults[step] = how
    assert len(house.vend(door, 4)) == 4
    assert house.sources() == ["exchange"] * 4
    house.drain()


@doors
@steps
def test_every_step_of_the_matrix_is_one_that_a_vend_takes(step: tuple[str, str], door: str) -> None:
    house = House(pooled=0 if step == ("lease", "wake") else 1)
    house.table.faults[step] = "refused"
    house.vend(door)
    assert house.table.hit


@doors
def test_a_table_that_fails_halfway_through_a_batch_keeps_what_was_claimed_before(door: str) -> None:
    house = House()
    takes = iter(range(100))

    def fail_from_the_third_on(operation: str) -> None:
        if operation == "take" and next(takes) >= 2:
            raise TableUnavailable("ThrottlingException")

    house.table.before = fail_from_the_third_on
    assert len(house.vend(door, 4)) == 4
    assert sorted(house.sources()) == ["exchange", "exchange", "pool", "pool"]
    house.table.before = lambda _: None
    house.drain()


@doors
def test_the_function_that_refills_may_not_be_reachable(door: str) -> None:
    house = House(pooled=1)
    for failure in (aws_error("AccessDeniedException"), aws_error("TooManyRequestsException", 429), None):
        house.lambda_.failure = failure
        assert len(house.vend(door)) == 1
        house.clock.sleep(6)
    assert house.lambda_.invoked


# The table hangs: nobody waits for it, however often, and what it lets go at last is nobody's


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@doors
@pytest.mark.parametrize("hangs", ["pool", "demand", "level", "wake"])
def test_a_table_that_hangs_keeps_no_vend_waiting_or_failing(door: str, hangs: str, release: threading.Event) -> None:
    house = House(pooled=2)
    house.table.hang, house.table.hangs = release, (hangs,)
    for _ in range(3):
        assert len(house.vend(door)) == 1


@doors
def test_a_table_that_hangs_for_good_fails_no_vend_when_all_threads_hang_in_it(
    door: str, release: threading.Event
) -> None:
    house = House(pooled=2)
    house.table.hang, house.table.hangs = release, ("pool", "demand", "level", "wake")
    for _ in range(5):
        values = house.vend(door)
        assert isinstance(values, list), values
    assert len({*house.handed_out}) == 5


# Imburse fails, the table does not: the pool serves until it is empty


@doors
@upstream
def test_imburse_fails_and_claims_go_on_until_the_pool_is_empty(fails: str, door: str) -> None:
    house = House()
    code = fail_upstream(house, fails)
    assert sorted(str(house.vend(door)) for _ in range(POOLED)) == sorted(str([value]) for value in house.in_pool)
    assert not house.imburse.requests
    assert house.vend(door) == code
    assert house.vend(door, 4) == code
    house.drain()


@doors
@upstream
def test_a_batch_gets_what_the_pool_has_while_imburse_fails(fails: str, door: str) -> None:
    house = House()
    fail_upstream(house, fails)
    assert sorted(house.vend(door, 10)) == house.in_pool
    house.drain()


@doors
@upstream
def test_tokens_too_old_for_the_request_are_not_given_when_imburse_fails(fails: str, door: str) -> None:
    house = House(pooled=0)
    house.put("old", life_seconds=299)
    code = fail_upstream(house, fails)
    assert house.vend(door) == code
    assert house.vend(door, minimumLifetimeSeconds=200) == ["old"]


@doors
def test_an_empty_pool_and_no_imburse_is_a_503_that_says_when_to_come_again(door: str) -> None:
    house = House(pooled=0)
    fail_upstream(house, "down")
    refusal = house.api_refusal(api_event()) if door == "api" else house.invoke_refusal({"credential": str(CREDENTIAL)})
    assert (refusal.status, refusal.code) == (503, "upstream_unavailable")
    if door == "api":
        assert int(refusal.headers["Retry-After"]) > 0


# Both fail


@doors
@hows
@upstream
@pytest.mark.parametrize("step", STOPS_THE_CLAIM, ids=" ".join)
def test_table_and_imburse_fail_and_the_caller_hears_of_imburse(
    step: tuple[str, str], fails: str, how: How, door: str
) -> None:
    house = House()
    house.table.faults[step] = how
    code = fail_upstream(house, fails)
    assert house.vend(door) == code
    assert house.vend(door, 4) == code
    house.drain()


# What is in the pool is not what it should be


@doors
@pytest.mark.parametrize(
    "spoil",
    [
        {"public_key": "another-key"},
        {"account": "another-account"},
        {"tenant": "another-tenant"},
        {"base_url": "https://another.test"},
        {"expires": 5},
        {"expires": "soon"},
        {"token": None},
        {"base_url": None},
        {"public_key": None},
    ],
    ids=str,
)
def test_a_pooled_item_that_does_not_fit_is_never_given_and_is_tidied_away(spoil: dict[str, Any], door: str) -> None:
    house = House()
    for item in house.table.items.values():
        if str(item["pk"]).startswith("pool#"):
            for name, value in spoil.items():
                item.pop(name) if value is None else item.update({name: value})
    for _ in range(4):
        assert not {*house.vend(door)} & {*house.in_pool}
        assert house.sources() == ["exchange"]
    assert house.pool.tidy(CREDENTIAL, house.key, least_seconds=0, base_url=BASE_URL)[0] == 0
    assert house.table.partition(f"pool#{CREDENTIAL}") == []


# The record cannot be written


@doors
@counts
def test_tokens_of_a_vend_that_cannot_be_recorded_are_wasted_and_given_to_nobody(count: int, door: str) -> None:
    house = House()
    house.audit.append({})
    house.audit_failure = OSError("disk full")
    assert house.vend(door, count) == "audit_unavailable"
    house.audit_failure = None
    wasted = {*house.in_pool} - {str(item["token"]) for item in house.table.partition(f"pool#{CREDENTIAL}")}
    assert len(wasted) == count
    house.drain()
    assert not wasted & {*house.handed_out}


# Secrets Manager fails


@doors
@pytest.mark.parametrize("code", ["InternalServiceError", "ThrottlingException"])
def test_a_key_in_memory_claims_on_while_secrets_manager_is_down(code: str, door: str) -> None:
    house = House()
    assert len(house.vend(door)) == 1
    house.aws.failure = aws_error(code, 500)
    house.clock.sleep(301)
    assert len(house.vend(door)) == 1
    assert house.sources() == ["pool"]


@doors
def test_a_rotated_key_gets_none_of_the_old_keys_tokens(door: str) -> None:
    house = House()
    fresh = secret(poolMin=POOLED, poolMax=100)
    house.imburse.accept(fresh)
    house.aws.put(str(CREDENTIAL), fresh)
    house.clock.sleep(301)
    for _ in range(3):
        house.vend(door)
        assert house.sources() == ["exchange"]


# Sharing


SHARED_STEPS = [
    ("get", "shared"),
    ("lease", "lease#share"),
    ("put", "shared"),
    ("hold", "lease#share"),
    ("query", "brake"),
    ("add", "budget"),
    ("any", "any"),
]


@doors
@hows
@pytest.mark.parametrize("step", SHARED_STEPS, ids=" ".join)
def test_no_vend_of_a_shared_token_fails_because_of_the_table(step: tuple[str, str], how: How, door: str) -> None:
    house = House(pooled=0, reuse="shared", poolMin=0, poolMax=0)
    house.table.faults[step] = how
    first, second = house.vend(door), house.vend(door)
    assert isinstance(first, list)
    assert first == second, "what is in memory serves"
    assert house.table.hit


@doors
@upstream
def test_a_shared_token_outlives_an_imburse_that_fails(fails: str, door: str) -> None:
    house = House(pooled=0, reuse="shared", poolMin=0, poolMax=0)
    first = house.vend(door)
    code = fail_upstream(house, fails)
    house.clock.sleep(900)
    assert house.vend(door) == first
    house.clock.sleep(901)
    assert house.vend(door) == code


# The refill, which nobody waits for: whatever fails, it raises nothing, overfills nothing, and the next run makes up for it


REFILL_STEPS = [
    ("query", "brake"),
    ("get", "backoff"),
    ("lease", "lease#refill"),
    ("query", "pool"),
    ("query", "demand"),
    ("put", "level"),
    ("hold", "lease#refill"),
    ("put", "pool"),
    ("add", "level"),
    ("any", "any"),
]


def new_refill(house: House) -> Refill:
    """The refill of another execution environment."""
    brake = Brake(house.table, clock=house.clock)
    return Refill(
        secrets=SecretStore(house.aws, monotonic=house.clock),  # type: ignore[arg-type]
        exchange=Exchange(house.imburse.transport(), clock=house.clock, monotonic=house.clock, sleep=house.clock.sleep),
        hosts=Hosts.parse(f"sandbox={BASE_URL}"),
        pool=Pool(house.table, clock=house.clock),
        table=house.table,
        backoff=Backoff(house.table, clock=house.clock),
        frozen=lambda credential: brake.stops(credential) is not None,
        clock=house.clock,
    )


def run(refill: Refill, house: House) -> Filled:
    return refill.run(CREDENTIAL, deadline=Deadline.after(40, house.clock), correlation_id="correlation-1")


def is_full(house: House) -> bool:
    return house.pool.depth(CREDENTIAL, least_seconds=LEAST_SECONDS) == POOLED


@hows
@pytest.mark.parametrize("step", REFILL_STEPS, ids=" ".join)
def test_a_refill_that_a_table_fails_raises_nothing_and_the_next_one_fills_up(step: tuple[str, str], how: How) -> None:
    house = House(pooled=1)
    refill = new_refill(house)
    house.table.faults[step] = how
    run(refill, house)
    assert house.table.hit
    house.table.faults.clear()
    house.clock.sleep(61)
    assert run(refill, house).code is None
    house.clock.sleep(61)
    run(refill, house)
    # A put whose answer was lost is there all the same, so it may be one chunk over; never under.
    assert POOLED <= house.pool.depth(CREDENTIAL, least_seconds=LEAST_SECONDS) <= POOLED + 1
    house.drain()


@upstream
def test_a_refill_that_imburse_fails_backs_off_and_fills_up_when_it_is_back(fails: str) -> None:
    house = House(pooled=1)
    refill, other = new_refill(house), new_refill(house)
    code = fail_upstream(house, fails)
    filled = run(refill, house)
    assert (filled.state, filled.code) == ("failed", code)
    asked = len(house.imburse.requests)
    for environment in (refill, other):
        assert run(environment, house).state == "backing off"
    assert len(house.imburse.requests) == asked, "nobody asks before the time"
    house.imburse.always = None
    house.clock.sleep(1000)
    assert run(other, house).state == "filled"
    assert is_full(house)
    assert run(refill, house).added == 0


@pytest.mark.parametrize("moment", range(12))
def test_a_refill_that_begins_while_another_runs_adds_nothing(moment: int) -> None:
    house = House(pooled=1)
    first, second = new_refill(house), new_refill(house)
    operations, answers = iter(range(1000)), list[Filled]()

    def begin_at_the_moment(operation: str) -> None:
        if next(operations) == moment:
            answers.append(run(second, house))

    house.table.before = begin_at_the_moment
    run(first, house)
    house.table.before = lambda _: None
    assert len(answers) == 1
    assert is_full(house)
    assert len(house.imburse.tokens) == POOLED - 1
