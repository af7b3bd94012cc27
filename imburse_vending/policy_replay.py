"""What a changed policy would have said to past requests: who gains access by it, who loses it."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from imburse_auth.credential import CredentialId
from imburse_vending.policy_ask import DOORS, Question, caller, through, written
from vending.access.policy import Decision, Policy, System
from vending.access.rules import ACTIONS

Change = Literal["gains", "loses"]

# Why a record says nothing about the policy.
NO_REQUEST = "no caller's request: the machine's own work on a key, or refused before it was read"
NO_CALLER = "nobody vouched for the caller"
NO_DECISION = "ended before a decision"
UNREADABLE = "cannot be read"
UNCLEAR = "refused by a forbid or by the brake: only the policy of that time tells which (--before)"


class NotReplayable(Exception):
    """A record that says nothing about the policy, and why."""


@dataclass
class Difference:
    """One caller, action and resource for whom the new policy decides otherwise.

    `counts` are those asked for, `last` the latest time on record; `then` and `now` the rules that decided.
    """

    change: Change
    caller: str
    action: str
    resource: str
    records: int = 0
    last: str = ""
    counts: set[int] = field(default_factory=set)
    via: set[str] = field(default_factory=set)
    then: set[str] = field(default_factory=set)
    now: set[str] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        plain = {"caller": self.caller, "action": self.action, "resource": self.resource, "records": self.records}
        rules = {"rulesThen": sorted(self.then), "rulesNow": sorted(self.now)}
        return {**plain, "last": self.last, "counts": sorted(self.counts), "via": sorted(self.via), **rules}


@dataclass(frozen=True)
class Replay:
    """All differences, losses first, and how many records were not replayable, by reason."""

    replayed: int
    differences: tuple[Difference, ...]
    skipped: Mapping[str, int]


def replay(
    records: Collection[Mapping[str, Any]], new: Policy, own_account: str, *, before: Policy | None = None
) -> Replay:
    """Ask the new policy what was asked then, and compare with what is on record.

    What the brake, a budget, Imburse or a bug refused was allowed by the policy. `before`, the policy of that time, is
    wanted for refusals that name a rule which allowed nothing in these records: a forbid or the brake may have been it.
    """
    allowing = {name for record in records if record.get("decision") == "allow" for name in _rules_in(record)}
    differences: dict[tuple[str, ...], Difference] = {}
    decided: dict[Question, Decision] = {}
    skipped: Counter[str] = Counter()
    for record in records:
        try:
            question = question_of(record, own_account)
            then = _allowed_then(record, question, allowing, before)
        except NotReplayable as exc:
            skipped[str(exc)] += 1
            continue
        # Callers ask the same again and again: a hundred thousand records hold a few dozen questions.
        decision = decided[question] = decided.get(question) or question.ask(new)
        if decision.allowed == then:
            continue
        change: Change = "gains" if decision.allowed else "loses"
        key = (change, question.caller.id, question.action, written(question.resource))
        _note(differences.setdefault(key, Difference(change, *key[1:])), record, question, decision.policy_ids)
    ordered = sorted(
        differences.values(), key=lambda one: (one.change != "loses", one.caller, one.action, one.resource)
    )
    return Replay(len(records) - skipped.total(), tuple(ordered), dict(skipped))


def question_of(record: Mapping[str, Any], own_account: str) -> Question:
    """What was asked, as the policy saw it. Raises NotReplayable."""
    action = record.get("action")
    if action not in ACTIONS:
        raise NotReplayable(NO_REQUEST)
    if record.get("caller") is None:
        raise NotReplayable(NO_CALLER)
    via, count = record.get("via") or record.get("door"), record.get("count", 1)
    address, endpoint = record.get("sourceIp"), record.get("vpce")
    if via not in DOORS or type(count) is not int or not isinstance(endpoint, str | None):
        raise NotReplayable(UNREADABLE)
    try:
        if address is not None:
            ipaddress.ip_address(address)
        asking = through(caller(str(record["caller"]), own_account), via, address, endpoint)
        return Question(asking, action, _resource(record), count)
    except ValueError:
        raise NotReplayable(UNREADABLE) from None


def _resource(record: Mapping[str, Any]) -> CredentialId | System:
    """Raises ValueError."""
    order = record.get("brake")
    if record["action"] == "operate" and isinstance(order, Mapping) and order.get("scope") in {"everything", "caller"}:
        return System()
    return CredentialId.parse(record.get("credential"))


def _allowed_then(record: Mapping[str, Any], question: Question, allowing: set[str], before: Policy | None) -> bool:
    """What the policy said, whatever came of it. Raises NotReplayable."""
    if record.get("decision") == "allow":
        return True
    rules = _rules_in(record)
    if record.get("error") != "not_authorized":
        # Neither policy nor brake said no: something failed, before the decision or after the rules had allowed it.
        if not rules:
            raise NotReplayable(NO_DECISION)
        return True
    if not rules:
        return False
    # The record of a refusal by the brake (or of a proof that was used before) names the rules that had allowed it; that
    # of a forbid names the forbid. Which it is, the policy itself tells, or else a rule that allowed something elsewhere.
    if before is not None and set((decision := question.ask(before)).policy_ids) == rules:
        return decision.allowed
    if allowing & rules:
        return True
    raise NotReplayable(UNCLEAR)


def _note(difference: Difference, record: Mapping[str, Any], question: Question, now: Iterable[str]) -> None:
    difference.records += 1
    difference.last = max(difference.last, str(record.get("time", "")))
    difference.counts.add(question.count)
    difference.via.add(question.caller.via)
    difference.then |= _rules_in(record)
    difference.now |= set(now)


def _rules_in(record: Mapping[str, Any]) -> set[str]:
    rules = record.get("policies", [])
    return {str(name) for name in rules} if isinstance(rules, list) else set()
