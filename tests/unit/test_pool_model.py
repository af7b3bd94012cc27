"""Pool, refill, leases, budgets and brake against a reference model that a page holds: random histories of three execution environments,
with a clock that moves only when told to, a key that is rotated, and a table and an Imburse that fail in between."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import UpstreamUnavailable
from imburse_auth.exchange import Exchanged
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from tests.fake_table import FakeTable
from tests.fakes import BASE_URL, Clock, private_key
from vending.access.brake import Brake, Scope
from vending.access.budget import Budgets
from vending.access.caller import Caller
from vending.access.limit import Budget
from vending.access.policy import Decision
from vending.errors import BrakeUnavailable, NotAuthorized, OverBudget
from vending.supply.backoff import Backoff
from vending.supply.leftovers import KEPT_SECONDS
from vending.supply.pool import ROUNDS, Pool, Pooled
from vending.supply.refill import LEAST_SECONDS, Refill, target
from vending.table import TableUnavailable

CREDENTIAL = CredentialId("sandbox", "tenant-a")
CALLERS = [Caller("orders", "123456789012", "api"), Caller("refunds", "123456789012", "api")]
LIMIT, WINDOW_SECONDS = 10, 60
DECISION = Decision(allowed=True, policy_ids=("rule",), budgets=(Budget("rule", LIMIT, WINDOW_SECONDS),))
POOL_MIN, POOL_MAX = 4, 20
LEASE_SECONDS = 20
FREEZABLE: list[tuple[Scope, str | None]] = [
    ("everything", None),
    ("credential", str(CREDENTIAL)),
    ("caller", CALLERS[0].id),
]
HANDFUL = 2  # instead of 16: a pool of a dozen is then a large one
environments = st.integers(0, 2)
Health = Literal["well", "refused", "lost"]


class SickTable(FakeTable):
    """Well; or it refuses; or it does what it is told, and the answer is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.health: Health = "well"
        for name in ("get", "query", "put", "take", "add", "lease", "hold", "delete"):
            setattr(self, name, self._sickly(getattr(self, name)))

    def _sickly(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.health == "refused":
                raise TableUnavailable("ThrottlingException")
            answer = operation(*args, **options)
            if self.health == "lost":
                raise TableUnavailable("ReadTimeoutError")
            return answer

        return call


@dataclass
class Key:
    """The credential's key as Secrets Manager has it now."""

    api_key: ApiKey

    def get(self, credential: CredentialId) -> ApiKey:
        return self.api_key

    def reread(self, credential: CredentialId, refused: ApiKey) -> ApiKey:
        return self.api_key


class Imburse:
    """An exchange that makes tokens while it is well."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.down = clock, False
        self.made: list[AccessToken] = []
        self._serial = itertools.count()

    def access_token(self, api_key: ApiKey, base_url: str, **_: Any) -> Exchanged:
        if self.down:
            raise UpstreamUnavailable("down")
        token = AccessToken(f"refilled-{next(self._serial)}", int(self.clock()) + 1800, "account-1", "tenant-a")
        self.made.append(token)
        return Exchanged(token, base_url, None)


@dataclass
class Environment:
    """One execution environment: everything it keeps in memory is its own. `frozen` and `until` model its view of the brake."""

    pool: Pool
    brake: Brake
    budgets: Budgets
    refill: Refill
    frozen: frozenset[tuple[Scope, str | None]] = frozenset()
    read_at: float = -math.inf
    until: float = -math.inf
    fence: int | None = None


@dataclass
class Model:
    """What there should be, as plainly as it can be said."""

    tokens: dict[str, tuple[int, str]] = field(default_factory=dict)  # value: expires, public key
    put_at: dict[str, float] = field(default_factory=dict)
    handed_out: list[str] = field(default_factory=list)
    frozen: frozenset[tuple[Scope, str | None]] = frozenset()
    spent: Counter[tuple[str, int]] = field(default_factory=Counter)
    lease_until: float = -math.inf
    fence: int = 0


def new_key() -> ApiKey:
    return ApiKey(
        f"public-{next(_serial)}", private_key(), "account-1", "tenant-a", pool_min=POOL_MIN, pool_max=POOL_MAX
    )


_serial = itertools.count()


class History(RuleBasedStateMachine):
    """Each rule does one thing to the system and the same to the model, and compares what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.smaller = mock.patch("vending.supply.pool.HANDFUL", HANDFUL)
        self.smaller.start()

    def teardown(self) -> None:
        self.smaller.stop()

    @initialize()
    def begin(self) -> None:
        self.table, self.clock, self.model = SickTable(), Clock(), Model()
        self.key, self.imburse = Key(new_key()), Imburse(self.clock)
        self.serial = itertools.count()
        self.environments = [self.environment() for _ in range(3)]

    def environment(self) -> Environment:
        pool = Pool(self.table, clock=self.clock, monotonic=self.clock, choose=lambda count: count // 2)
        brake = Brake(self.table, clock=self.clock)
        refill = Refill(
            secrets=self.key,  # type: ignore[arg-type]
            exchange=self.imburse,  # type: ignore[arg-type]
            hosts=Hosts.parse(f"sandbox={BASE_URL}"),
            pool=pool,
            table=self.table,
            backoff=Backoff(self.table, clock=self.clock, between=lambda least, most: most),
            frozen=lambda credential: brake.stops(credential) is not None,
            clock=self.clock,
        )
        return Environment(pool, brake, Budgets(self.table, clock=self.clock), refill)

    # Time and weather

    @rule(seconds=st.sampled_from([0.5, 1, 4, 5, 6, 20, 61, 400, 1400]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(health=st.sampled_from(["well", "well", "refused", "lost"]))
    def table_changes(self, health: Health) -> None:
        self.table.health = health

    @rule(down=st.booleans())
    def imburse_changes(self, down: bool) -> None:
        self.imburse.down = down

    @rule()
    def key_is_rotated(self) -> None:
        self.key.api_key = new_key()

    @rule(who=environments)
    def environment_is_replaced(self, who: int) -> None:
        self.environments[who] = self.environment()

    # Pool

    @rule(
        who=environments,
        life_seconds=st.sampled_from([1, 299, 300, 301, 900, 1800]),
        old=st.booleans(),
        count=st.sampled_from([1, 8]),
    )
    def put(self, who: int, life_seconds: int, old: bool, count: int) -> None:
        public_key = "an-old-key" if old else self.key.api_key.public_key
        for number in range(count):
            value, expires = f"put-{next(self.serial)}", int(self.clock()) + life_seconds + number
            pooled = Pooled(AccessToken(value, expires, "account-1", "tenant-a"), BASE_URL, public_key, None)
            self.attempt(lambda pooled=pooled: self.environments[who].pool.put(CREDENTIAL, pooled))  # type: ignore[misc]
            if self.table.health != "refused":
                self.model.tokens[value] = (expires, public_key)
                self.model.put_at[value] = self.clock()

    @rule(who=environments, least_seconds=st.sampled_from([0, 300, 1500]), count=st.sampled_from([1, 1, 3, 30]))
    def claim(self, who: int, least_seconds: int, count: int) -> None:
        before = dict(self.model.tokens)
        claimed: list[Pooled] = []
        wasted: list[None] = []
        failed = self.attempt(
            lambda: self.environments[who].pool.claim_many(
                CREDENTIAL,
                self.key.api_key,
                count,
                least_seconds=least_seconds,
                on_claim=claimed.append,
                on_wasted=lambda: wasted.append(None),
            )
        )
        values = {pooled.token.value for pooled in claimed}
        self.model.handed_out += [pooled.token.value for pooled in claimed]
        now = self.clock()
        able = {
            v
            for v, (expires, key) in before.items()
            if expires >= now + least_seconds and key == self.key.api_key.public_key
        }
        dying = {value for value in able if before[value][0] == now}  # they may be taken, but not be handed out
        able -= dying
        widest = HANDFUL * 2 ** (ROUNDS - 1)
        # What an environment has seen in the last 5 s it need not look for, so it may not know what came since.
        known = sorted(before[value][0] for value in able if now - self.model.put_at[value] >= KEPT_SECONDS)
        for value in values:
            assert value in able, "a token was handed out that lives too short, or is another key's"
            assert before[value][0] <= [*known, math.inf][: count + widest][-1]
        gone = before.keys() - self.in_table().keys()
        assert failed or len(wasted) == len(gone & dying), "no other token is taken that is of no use"
        if failed:
            assert not values, "with a table that fails from the first call nothing is claimed"
            assert len(gone) <= (count if self.table.health == "lost" else 0), "what was tried may be gone, and no more"
            assert gone <= able | dying
        else:
            assert gone - dying == values, "what is taken is handed out"
            unfit = len(before) - len(able)
            if unfit < widest:  # else they may hide what is behind them
                assert len(values) == min(count, len(able))
        for value in gone:
            del self.model.tokens[value]

    @rule(
        who=environments,
        other=environments,
        between=st.sampled_from(["nothing", "rotation", "purge", "claims", "time", "outage", "new tokens", "refill"]),
        least_seconds=st.sampled_from([0, 300]),
        again_seconds=st.sampled_from([0, 300]),
    )
    def claim_twice(self, who: int, other: int, between: str, least_seconds: int, again_seconds: int) -> None:
        """The second time knowing what the first has seen, which may not be so any more."""
        self.put(who, 301, old=False, count=8)
        self.claim(who, least_seconds, 1)
        match between:
            case "rotation":
                self.key_is_rotated()
            case "purge":
                self.purge(other, rotated=False)
            case "claims":
                self.claim(other, 0, 3)
            case "time":
                self.clock.now += 4
            case "outage":
                self.table.health = "lost"
                self.claim(who, 0, 3)
                self.table.health = "well"
            case "new tokens":
                self.put(other, 1, old=False, count=8)
            case "refill":
                self.refill(other)
        self.claim(who, again_seconds, 1)

    @rule(who=environments, least_seconds=st.sampled_from([0, 300]))
    def depth(self, who: int, least_seconds: int) -> None:
        found: list[int] = []
        pool = self.environments[who].pool
        if not self.attempt(lambda: found.append(pool.depth(CREDENTIAL, least_seconds=least_seconds))):
            ends = [expires for expires, _ in self.model.tokens.values()]
            assert found == [sum(end >= self.clock() + least_seconds for end in ends)]

    @rule(who=environments, rotated=st.booleans())
    def purge(self, who: int, rotated: bool) -> None:
        kept_key = self.key.api_key.public_key if rotated else None
        if not self.attempt(lambda: self.environments[who].pool.purge(CREDENTIAL, public_key=kept_key)):
            self.model.tokens = {v: t for v, t in self.model.tokens.items() if rotated and t[1] == kept_key}

    @rule(who=environments)
    def refill(self, who: int) -> None:
        environment, made_before = self.environments[who], len(self.imburse.made)
        stopped = self.stops(environment, None)
        filled = environment.refill.run(
            CREDENTIAL, deadline=Deadline.after(30, self.clock), correlation_id="correlation-1"
        )
        made = self.imburse.made[made_before:]
        now, key = self.clock(), self.key.api_key.public_key
        known = dict(self.model.tokens)
        for token in made:
            self.model.tokens[token.value] = (token.expires, key)
            self.model.put_at[token.value] = now
        there = self.in_table()
        assert there.keys() <= self.model.tokens.keys()
        useful = {v for v, (e, k) in known.items() if e > now and k == key}
        usable = [v for v, (e, k) in there.items() if e >= now + LEAST_SECONDS and k == key]
        if self.table.health == "well" and stopped:
            assert (filled.state, there, made) == ("frozen", {}, [])
        elif filled.state == "filled":
            wanted = target(0, POOL_MIN, POOL_MAX)
            assert useful <= there.keys(), "a refill takes nothing away that is of use"
            assert len(usable) >= wanted
            assert not made or len(usable) == wanted, "a refill fills up to its target and not over it"
        else:
            assert filled.state in {"failed", "busy", "backing off"}
            assert self.table.health == "well" or filled.state == "failed"
            assert useful <= there.keys()
        self.model.tokens = there

    # Lease

    @rule(who=environments)
    def lease(self, who: int) -> None:
        now, environment = self.clock(), self.environments[who]
        free, got = now >= self.model.lease_until, list[int | None]()
        call = lambda: got.append(  # noqa: E731
            self.table.lease("lease", "lease", now_ms=ms(now), until_ms=ms(now + LEASE_SECONDS), ttl=int(now) + 86_400)
        )
        failed = self.attempt(call)
        if free and self.table.health != "refused":
            self.model.fence += 1
            self.model.lease_until = now + LEASE_SECONDS
        if not failed:
            assert got == [self.model.fence if free else None]
            environment.fence = got[0] if free else environment.fence

    @rule(who=environments, seconds=st.sampled_from([0, LEASE_SECONDS]))
    def hold(self, who: int, seconds: int) -> None:
        now, fence, held = self.clock(), self.environments[who].fence or 0, list[bool]()
        mine = fence == self.model.fence and now < self.model.lease_until
        call = lambda: held.append(  # noqa: E731
            self.table.hold("lease", "lease", fence=fence, now_ms=ms(now), until_ms=ms(now + seconds))
        )
        failed = self.attempt(call)
        if mine and self.table.health != "refused":
            self.model.lease_until = now + seconds
        assert failed or held == [mine]

    # Budget

    @rule(who=environments, caller=st.sampled_from(CALLERS), count=st.integers(1, LIMIT + 1))
    def spend(self, who: int, caller: Caller, count: int) -> None:
        window = (caller.id, int(self.clock()) // WINDOW_SECONDS)
        room = self.model.spent[window] + count <= LIMIT
        over: OverBudget | None = None
        try:
            self.environments[who].budgets.spend(caller, CREDENTIAL, DECISION, count)
        except OverBudget as refusal:
            over = refusal
        if self.table.health == "well":
            assert (over is None) == room
        elif count <= LIMIT:
            assert over is None, "a counter that cannot be reached lets the call pass"
        if over is not None:
            assert 0 < (over.retry_after_seconds or 0) <= WINDOW_SECONDS
        if room and self.table.health != "refused":
            self.model.spent[window] += count

    # Brake

    @rule(who=environments, what=st.sampled_from(FREEZABLE), freeze=st.booleans())
    def operate(self, who: int, what: tuple[Scope, str | None], freeze: bool) -> None:
        environment = self.environments[who]
        try:
            if freeze:
                environment.brake.freeze(*what, who="an-operator", why="a test")
            else:
                environment.brake.thaw(*what)
            environment.until = environment.read_at  # it looks again at once
            assert self.table.health == "well"
        except BrakeUnavailable:
            assert self.table.health != "well"
        if self.table.health != "refused":
            self.model.frozen = self.model.frozen | {what} if freeze else self.model.frozen - {what}

    @rule(who=environments, caller=st.sampled_from(CALLERS))
    def check(self, who: int, caller: Caller) -> None:
        expected = self.stops(self.environments[who], caller)
        try:
            self.environments[who].brake.check(caller, CREDENTIAL)
            assert not expected
        except NotAuthorized:
            assert expected

    def stops(self, environment: Environment, caller: Caller | None) -> bool:
        """The model of an environment's view: 5 s old at most, or while the table is away what it saw last."""
        now = self.clock()
        if now >= environment.until:
            environment.read_at = now
            if self.table.health == "well":
                environment.frozen, environment.until = self.model.frozen, now + 5
            else:
                environment.until = now + 1
        return any(
            scope != "caller" or (caller is not None and frozen_id == caller.id)
            for scope, frozen_id in environment.frozen
        )

    # Always

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def each_token_is_in_one_place(self) -> None:
        assert len(set(self.model.handed_out)) == len(self.model.handed_out), "a token was handed out twice"
        assert self.in_table() == self.model.tokens
        assert not self.model.tokens.keys() & {*self.model.handed_out}
        assert all(spent <= LIMIT for spent in self.model.spent.values())

    def in_table(self) -> dict[str, tuple[int, str]]:
        items = self.table.partition(f"pool#{CREDENTIAL}")
        return {str(item["token"]): (int(item["expires"]), str(item["public_key"])) for item in items}

    def attempt(self, act: Callable[[], object]) -> bool:
        """Do it; true if the table failed, which must be when the table is not well, and only then."""
        try:
            act()
        except TableUnavailable:
            assert self.table.health != "well"
            return True
        return False


def ms(seconds: float) -> int:
    return int(seconds * 1000)


History.TestCase.settings = settings(max_examples=80, stateful_step_count=60, suppress_health_check=list(HealthCheck))
TestHistory = History.TestCase
