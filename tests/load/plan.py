"""What a load run is: who calls, what goes wrong when, and what is promised about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

Door = Literal["api", "invoke"]

INLINE, POOLED, SHARED, BUDGETED, REPLACED = (
    f"sandbox/{name}" for name in ("inline", "pooled", "shared", "budgeted", "replaced")
)
RECOVERY_SECONDS = 10.0  # from a fault's end until every vend must succeed again
# From a fault of DynamoDB's end until the pool has answered somebody, and has tokens again: a refill that failed is left alone
# for up to a minute, and then wants to be woken.
POOL_SECONDS, POOL_FILLED_SECONDS = RECOVERY_SECONDS + 10.0, RECOVERY_SECONDS + 65.0
# In the second half of a run. What leaks does so everywhere; what an environment makes at its first use costs once in its life,
# and some make it late: botocore's Lambda client, when they first find a pool run low, takes 3.3 MiB for the service's model.
GROWTH_MIB, MOST_GROWTH_MIB = 2.0, 8.0
BUDGET_PER_MINUTE = 60
FUNCTION: dict[Door, str] = {"api": "api", "invoke": "vend"}


@dataclass(frozen=True)
class Kind:
    """One way of calling. `who` is a role at the API and an alias at the other door; a batch asks for 2 to `most` tokens.

    `weight` is how many of 64 callers call so.
    """

    name: str
    door: Door
    who: str
    credential: str
    weight: int
    action: Literal["single", "batch", "inspect"] = "single"
    most: int = 1
    refused: bool = False


KINDS = (
    Kind("in line", "api", "orders", INLINE, 8),
    Kind("pool", "api", "orders", POOLED, 8),
    Kind("in line, batch", "api", "orders", INLINE, 4, "batch", 8),
    Kind("pool, batch", "api", "orders", POOLED, 4, "batch", 8),
    Kind("shared", "api", "orders", SHARED, 2),
    Kind("inspect", "api", "operators", INLINE, 2, "inspect"),
    Kind("budget", "api", "refunds", BUDGETED, 2),
    Kind("replaced key", "api", "orders", REPLACED, 1),
    Kind("stranger", "api", "stranger", INLINE, 1, refused=True),
    Kind("in line", "invoke", "settlement-job", INLINE, 8),
    Kind("pool", "invoke", "settlement-job", POOLED, 8),
    Kind("in line, batch", "invoke", "settlement-job", INLINE, 5, "batch", 8),
    Kind("pool, batch", "invoke", "settlement-job", POOLED, 4, "batch", 8),
    Kind("shared", "invoke", "settlement-job", SHARED, 3),
    Kind("budget", "invoke", "access-report", BUDGETED, 2),
    Kind("replaced key", "invoke", "settlement-job", REPLACED, 1),
    Kind("stranger", "invoke", "live", INLINE, 1, refused=True),
)


def casting(callers: int) -> list[Kind]:
    """Which kind each caller is: first one of each, then as the weights say."""
    order = [kind for turn in range(max(k.weight for k in KINDS)) for kind in KINDS if turn < kind.weight]
    return [order[number % len(order)] for number in range(callers)]


# What goes wrong, and which codes of the error table a caller may see for it; none means that every vend must still succeed.
REPEATED = "Imburse: token repeated"
_PROTOCOL, _THROTTLED, _UNAVAILABLE = "upstream_protocol", "upstream_throttled", "upstream_unavailable"
FAULTS: dict[str, frozenset[str]] = {
    "key replaced": frozenset({"upstream_rejected"}),
    "Imburse: 0.5 s late": frozenset(),
    "Imburse: 8 s late": frozenset({_UNAVAILABLE}),
    "Imburse: 429": frozenset({_THROTTLED}),
    "Imburse: 429, Retry-After": frozenset({_THROTTLED}),
    "Imburse: 503": frozenset({_UNAVAILABLE}),
    "Imburse: hangs up": frozenset({_UNAVAILABLE}),
    "Imburse: drips": frozenset({_UNAVAILABLE}),
    # An inspection spends its token at once, and is refused if that was somebody else's.
    REPEATED: frozenset({_PROTOCOL, "upstream_rejected"}),
    "Imburse: wrong content": frozenset({_PROTOCOL}),
    "DynamoDB: stalls": frozenset(),
    "DynamoDB: errors": frozenset(),
    "DynamoDB: hangs up": frozenset(),
    "Secrets Manager: stalls": frozenset({"secrets_unavailable"}),
    "Secrets Manager: errors": frozenset({"secrets_unavailable"}),
}
KILLED = frozenset({"api:502", "invoke:Runtime.ExitError"})
"""What Lambda says by each door when the execution environment dies under a visit."""


@dataclass(frozen=True)
class Plan:
    """A run. Each fault is in force for `fault_share` of its slot; a caller waits about `pause_seconds` between two visits.

    Without `judge_recovery` the slots are too short to tell whose failure is whose, and the machine may be slow: a fault then
    explains what comes some slots after it, and what counts is that all are served in the end.
    """

    seconds: float = 300.0
    callers: int = 64
    seed: int = 1
    concurrency: int = 8
    pause_seconds: float = 1.0
    lead_seconds: float = 5.0
    fault_share: float = 0.35
    kill_every_seconds: float = 10.0
    refill_every_seconds: float = 60.0
    settle_seconds: float = 60.0
    judge_recovery: bool = True
    judge_memory: bool = True

    @property
    def explained_seconds(self) -> float:
        """For how long after its end a fault explains failures."""
        return RECOVERY_SECONDS if self.judge_recovery else 30.0

    @property
    def kill_seconds(self) -> float:
        """How long after a kill a visit may end that it cost; the machine may be slow."""
        return 5.0 if self.judge_recovery else 30.0

    def faults(self) -> Iterator[tuple[float, float, str]]:
        """Start, end (seconds from the beginning) and name of each, in order; as many rounds as bring a slot to 20 s or less.

        A key that was replaced takes longest to be used, so that comes first in each round.
        """
        rounds = max(1, round(self.seconds / (20.0 * len(FAULTS))))
        first, *rest = FAULTS
        lots = [Random(self.seed + turn) for turn in range(rounds)]
        names = [name for lot in lots for name in (first, *lot.sample(rest, len(rest)))]
        slot = self.seconds / len(names)
        for number, name in enumerate(names):
            yield number * slot, (number + self.fault_share) * slot, name
