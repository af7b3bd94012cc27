"""Running the machine: freeze or thaw a caller, a credential or everything, by a caller whom the policy lets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from imburse_auth.credential import CredentialId
from vending.access.brake import Brake, Scope
from vending.access.caller import Caller, canonical_id
from vending.access.policy import OPERATE, Decision, Policy, System
from vending.errors import BrakeUnavailable, InvalidRequest, NotAuthorized
from vending.record.redaction import redact
from vending.table import TableUnavailable

Operation = Literal["freeze", "thaw"]

FIELDS = frozenset({"operate", "scope", "target", "why"})
MAX_BODY_CHARACTERS = 8_192  # an order with a long ARN and 200 characters of why, each as a \\u escape, fits
MAX_TARGET_CHARACTERS = 900  # longer ones do not fit the table's sort key, of 1,024 bytes
MAX_WHY_CHARACTERS = 200
EFFECTIVE_SECONDS = 10


@dataclass(frozen=True)
class Order:
    """One freeze or thaw. `target` is a caller's id or a credential's as they stand in the policy, None for everything."""

    operate: Operation
    scope: Scope
    target: str | None
    why: str

    @classmethod
    def read(cls, members: Mapping[str, Any]) -> Order:
        """Read `{"operate": "freeze"|"thaw", "scope": "everything"|"caller"|"credential", "target"?, "why"}`.

        Other members are the door's business. Raises InvalidRequest, which names the field and never a value.
        """
        operate: Operation = _one_of(Operation, "operate", members)
        scope: Scope = _one_of(Scope, "scope", members)
        return cls(operate, scope, _target(scope, members), _why(members.get("why")))

    @property
    def resource(self) -> CredentialId | System:
        """What the policy is asked about."""
        return CredentialId.parse(self.target) if self.scope == "credential" else System()

    def as_record(self) -> dict[str, str]:
        """The order as it stands in the audit record, beside the caller, who is the who."""
        members = {"operate": self.operate, "scope": self.scope, "target": self.target, "why": self.why}
        return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True)
class Obeyed:
    """The answer to an order, and what is still to be done once its audit record is written."""

    body: dict[str, Any]
    then: Callable[[], None] = lambda: None


class Operator:
    """Decides and carries out orders.

    A freeze holds before its record is written: nothing must stand in its way, and the table names who and why. A thaw
    comes after its record: without one nothing is let loose. `purge` throws away whatever is kept of a credential (pool,
    shared token) and answers how many tokens that were; it raises TableUnavailable.
    """

    def __init__(self, policy: Policy, brake: Brake, purge: Callable[[CredentialId], int]) -> None:
        self._policy = policy
        self._brake = brake
        self._purge = purge

    def decide(self, caller: Caller, order: Order) -> Decision:
        """What the policy says: `operate` on the credential, or on `System::"vending"`."""
        return self._policy.decide(caller, OPERATE, order.resource)

    def obey(self, caller: Caller, order: Order) -> Obeyed:
        """Carry out an order that the policy allowed.

        A caller that is frozen may operate nothing, least of all thaw itself. Raises NotAuthorized, InvalidRequest and
        BrakeUnavailable, `then` also the latter.
        """
        if self._brake.stops_operator(caller):
            raise NotAuthorized("frozen: caller")
        body: dict[str, Any] = order.as_record() | {"effectiveWithinSeconds": EFFECTIVE_SECONDS}
        del body["why"]
        if order.operate == "thaw":
            return Obeyed(body, lambda: self._thaw(order))
        if order.scope == "caller" and order.target == caller.id:
            raise InvalidRequest("target: is the caller itself, which could not thaw itself afterwards")
        self._brake.freeze(order.scope, order.target, who=caller.id, why=order.why)
        with contextlib.suppress(TableUnavailable):  # the freeze holds, and a thaw purges before it lets loose
            body |= self._purged(order)
        return Obeyed(body)

    def _thaw(self, order: Order) -> None:
        # Once more: a refill that was under way at the freeze may have put tokens in after they were thrown away.
        try:
            self._purged(order)
        except TableUnavailable as exc:
            raise BrakeUnavailable("the pool could not be purged, so it is not thawed", reason=str(exc)) from exc
        self._brake.thaw(order.scope, order.target)

    def _purged(self, order: Order) -> dict[str, int]:
        if isinstance(order.resource, CredentialId):
            return {"purged": self._purge(order.resource)}
        return {}


def _one_of(choices: object, field: str, members: Mapping[str, Any]) -> Any:  # noqa: ANN401 - one of the choices
    value = members.get(field)
    if value not in get_args(choices):
        raise InvalidRequest(f"{field}: must be one of {', '.join(get_args(choices))}")
    return value


def _target(scope: Scope, members: Mapping[str, Any]) -> str | None:
    if scope == "everything":
        if members.get("target") is not None:
            raise InvalidRequest("target: everything has none")
        return None
    target = members.get("target")
    if not isinstance(target, str) or not 1 <= len(target) <= MAX_TARGET_CHARACTERS:
        raise InvalidRequest(f"target: must be text of 1 to {MAX_TARGET_CHARACTERS} characters")
    try:
        # As everything else here names it: what is frozen under another name is not frozen.
        return str(CredentialId.parse(target)) if scope == "credential" else canonical_id(target)
    except ValueError as exc:
        raise InvalidRequest(f"target: {exc}") from None


def _why(why: object) -> str:
    # Printable leaves no line break, no control character and no change of direction: it goes into the audit record.
    if not isinstance(why, str) or not 1 <= len(why) <= MAX_WHY_CHARACTERS or not why.isprintable() or not why.strip():
        raise InvalidRequest(f"why: must be 1 to {MAX_WHY_CHARACTERS} printable characters")
    if redact(why) != why:
        raise InvalidRequest("why: looks as if it held a key or a token, which must not be kept")
    return why
