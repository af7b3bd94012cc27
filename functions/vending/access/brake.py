"""The brake: what is frozen now, for every execution environment within seconds and without a deployment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from imburse_auth.credential import CredentialId
from vending.access.caller import Caller
from vending.errors import BrakeUnavailable, NotAuthorized
from vending.table import Table, TableUnavailable

Scope = Literal["everything", "caller", "credential"]

FRESH_SECONDS = 5.0  # how old the state in memory may be when it is used; a freeze is promised within 10
RETRY_SECONDS = 1.0  # while the table is down: how long until it is asked again, so that not every vend waits for it
OPERATE_ATTEMPTS = 3  # an operator in an emergency waits longer than a vend would; each is idempotent

_PARTITION = "brake"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class _State:
    """What was frozen (sort keys of the table), and from when to when (seconds since the epoch) that may be believed."""

    frozen: frozenset[str]
    read_at: float
    good_until: float


class Brake:
    """What is frozen: everything, single callers, single credentials. One object serves all threads.

    The state is read again before it is used, never in the background, where Lambda would stop it halfway. If the table
    cannot be reached the last state known goes on holding, and without one the call passes: a table that is down must not
    stop vending, nor can anybody freeze anything in it meanwhile. `on_unavailable` counts each failed read.
    """

    def __init__(
        self,
        table: Table,
        *,
        clock: Callable[[], float] = time.time,
        on_unavailable: Callable[[], None] = lambda: None,
    ) -> None:
        self._table = table
        # The wall clock: the monotonic one may stand still while Lambda keeps an environment frozen between two calls.
        self._clock = clock
        self._on_unavailable = on_unavailable
        self._state: _State | None = None

    def check(self, caller: Caller, credential: CredentialId) -> None:
        """Raise NotAuthorized if this caller, this credential or everything is frozen: outside, a refusal like any other."""
        scope = self.stops(credential, caller)
        if scope is not None:
            raise NotAuthorized(f"frozen: {scope}")

    def stops(self, credential: CredentialId, caller: Caller | None = None) -> Scope | None:
        """Why nothing may be had of this credential (by this caller) now, None if it may. For the refill too."""
        frozen = self._frozen()
        if not frozen:
            return None
        if sort_key("everything", None) in frozen:
            return "everything"
        if sort_key("credential", str(credential)) in frozen:
            return "credential"
        if caller is not None and sort_key("caller", caller.id) in frozen:
            return "caller"
        return None

    def stops_operator(self, caller: Caller) -> bool:
        """Whether this caller itself is frozen, read afresh: it may then not even thaw. Raises BrakeUnavailable."""
        return _patiently(lambda: self._table.get(_PARTITION, sort_key("caller", caller.id))) is not None

    def freeze(self, scope: Scope, target: str | None, *, who: str, why: str) -> None:
        """Freeze it, in here at once and elsewhere within 5 s. Raises BrakeUnavailable, and it may be frozen then."""
        sk = sort_key(scope, target)
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        _patiently(lambda: self._table.put({"pk": _PARTITION, "sk": sk, "who": who, "why": why, "at": at}))
        self._expire()

    def thaw(self, scope: Scope, target: str | None) -> None:
        """End a freeze; no error if there was none. Raises BrakeUnavailable, and it may be thawed then."""
        sk = sort_key(scope, target)
        _patiently(lambda: self._table.delete(_PARTITION, sk))
        self._expire()

    def _frozen(self) -> frozenset[str]:
        now, state = self._clock(), self._state
        # A clock that was set back makes the state older, never younger.
        if state is not None and state.read_at <= now < state.good_until:
            return state.frozen
        try:
            items = self._table.query(_PARTITION, attributes=("sk",))
            # Its age counts from before the read.
            state = _State(frozenset(str(item["sk"]) for item in items), now, now + FRESH_SECONDS)
        except TableUnavailable:
            self._on_unavailable()
            state = _State(state.frozen if state else frozenset(), now, now + RETRY_SECONDS)
        self._state = state
        return state.frozen

    def _expire(self) -> None:
        state = self._state
        if state is not None:
            self._state = _State(state.frozen, state.read_at, state.read_at)


def sort_key(scope: Scope, target: str | None) -> str:
    """Where a freeze stands in the table: `all`, `caller#<id>` or `credential#<id>`."""
    if scope == "everything":
        return "all"
    return f"{scope}#{target}"


def _patiently(operation: Callable[[], _Answer]) -> _Answer:
    failure = ""
    for _ in range(OPERATE_ATTEMPTS):
        try:
            return operation()
        except TableUnavailable as exc:
            failure = str(exc)
    raise BrakeUnavailable("the brake cannot be reached; whether it holds is not known, try again", reason=failure)
