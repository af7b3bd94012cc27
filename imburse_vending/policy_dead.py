"""Rules that can never matter: those that no request meets, and those that change no decision as long as others stand.

Only what surely holds is said; a dead rule that is too clever to be seen through goes by in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from imburse_vending.policy_ask import Values, account_of
from vending.access.policy import OPERATE, Policy
from vending.access.rules import Rule, Scope


def never_applies(rule: Rule, schema: str) -> str | None:
    """Why no request at all meets this rule; None if one does, or that cannot be known."""
    if rule.misnamed:
        return rule.misnamed
    if rule.permits and not rule.actions:
        return "it names no action"
    values, alone = Values.of([rule]), Policy(rule.text, schema)
    if not values.sure or any(question.ask(alone).policy_ids for question in values.questions()):
        return None
    if rule.any_action and rule.resource.kind == "System":
        return f"{OPERATE} is given only by a rule that names it, and nothing else is done to System"
    return "what its head and its conditions ask for does not go together"


def redundant(rule: Rule, rules: Collection[Rule], number: int) -> str | None:
    """Why this rule, the `number`th (from 0), changes no decision as long as the others stand; None if it may."""
    for other_number, other in enumerate(rules):
        if other_number == number:
            continue
        if rule.permits and not other.permits and not other.conditional and _covers(other, rule):
            return f"can never allow anything: {other.id} (line {other.line}) forbids all of it, without conditions"
        if rule.permits != other.permits:
            continue
        same = rule.body["conditions"] == other.body["conditions"]
        # Of two that say the same the first stays.
        if same and _same_limit(rule, other) and _covers(other, rule) and _covers(rule, other):
            if other_number < number:
                return f"says the same as {other.id} (line {other.line})"
            continue
        # A budget on the wider one would be lifted by this one; a condition that fails while evaluated denies.
        if not other.conditional and other.budget is None and _covers(other, rule) and not _may_fail(rule):
            verb = "allows" if rule.permits else "forbids"
            return f"changes nothing: {other.id} (line {other.line}) {verb} all of it, without conditions"
    return None


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Whether whatever meets the head of `narrow` meets that of `wide`."""
    return (
        narrow.actions <= wide.actions
        and _includes(wide.caller, narrow.caller, "Caller")
        and _includes(wide.resource, narrow.resource, "" if OPERATE in narrow.actions else "Credential")
    )


def _includes(wide: Scope, narrow: Scope, kind: str) -> bool:
    """`kind` is what the narrow one surely is where it does not say."""
    if wide.is_open:
        return wide.kind in {"", narrow.kind or kind}
    if wide.within is not None:
        group = narrow.within
        if narrow.exactly is not None and narrow.kind == wide.kind:
            group = account_of(narrow.exactly) if wide.kind == "Caller" else narrow.exactly.partition("/")[0]
        return wide.within == group
    return (wide.kind, wide.exactly) == (narrow.kind, narrow.exactly)


def _same_limit(rule: Rule, other: Rule) -> bool:
    return _limit(rule) == _limit(other)


def _limit(rule: Rule) -> tuple[int, int] | None:
    return (rule.budget.limit, rule.budget.window_seconds) if rule.budget else None


def _may_fail(rule: Rule) -> bool:
    """Whether its condition could end in an error, a number too large, which denies what another rule allows."""
    return any(_holds(condition["body"], {"+", "-", "*", "neg"}) for condition in rule.body["conditions"])


def _holds(node: Any, operations: Collection[str]) -> bool:  # noqa: ANN401 - JSON
    if isinstance(node, Mapping):
        return any(name in operations or _holds(part, operations) for name, part in node.items())
    return isinstance(node, list) and any(_holds(part, operations) for part in node)
