"""Why a request is allowed or denied, and what would have to be different: each answer is Cedar's, to a question asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from imburse_auth.credential import CredentialId
from imburse_vending.policy_ask import (
    STRANGE_ADDRESS,
    STRANGE_ENDPOINT,
    STRANGE_NAME,
    Question,
    Values,
    caller,
    ranges,
    through,
    written,
)
from vending.access.policy import OPERATE, Decision, System
from vending.access.rules import ACTIONS, Rule, RuleBook

PARTS = ("count", "door", "caller", "action", "resource")
MOST_PARTS = 2  # what differs in more is not near


@dataclass(frozen=True)
class Near:
    """A change of the question that Cedar allows: what would be different, and the rules that would allow it then."""

    change: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """A decision with the rules that made it; if it is a denial, also what is near and which rule would have to be written.

    `remedy` is that rule's text, and `remedy_stopped` the rules that deny it even then: a forbid may stand. `remedy_near`
    is what would then have to be different besides.
    """

    question: Question
    decision: Decision
    deciding: tuple[Rule, ...]
    near: tuple[Near, ...] = ()
    remedy: str | None = None
    remedy_stopped: tuple[str, ...] = ()
    remedy_near: tuple[Near, ...] = ()


def explain(book: RuleBook, text: str, schema: str, question: Question, own_account: str) -> Explanation:
    """Ask, and if it is denied ask what else would be allowed. `text` and `schema` are what the book was read from."""
    decision = question.ask(book.policy)
    deciding = tuple(rule for rule in book.rules if rule.id in decision.policy_ids)
    if decision.allowed:
        return Explanation(question, decision, deciding)
    near = tuple(nearest(book, question, own_account))
    remedy = rule_for(question)
    mended = RuleBook(f"{text}\n{remedy}", schema)
    then = question.ask(mended.policy)
    if then.allowed:
        return Explanation(question, decision, deciding, near, remedy)
    besides = tuple(nearest(mended, question, own_account, ("count", "door")))
    return Explanation(question, decision, deciding, near, remedy, then.policy_ids, besides)


def rule_for(question: Question) -> str:
    """The narrowest permit for this caller, action and resource, as Cedar text."""
    name = question.caller.id.rpartition("/")[2]
    what = question.resource.name if isinstance(question.resource, System) else str(question.resource).replace("/", "-")
    return (
        f'@id("{name}-{question.action}-{what}")\n'
        "permit (\n"
        f'  principal == Caller::"{question.caller.id}",\n'
        f'  action == Action::"{question.action}",\n'
        f"  resource == {written(question.resource)}\n"
        ");"
    )


def nearest(book: RuleBook, question: Question, own_account: str, among: tuple[str, ...] = PARTS) -> Iterator[Near]:
    """What would be allowed with as few parts changed as possible, and no more than two."""
    values = Values.of(book.rules)
    for size in range(1, MOST_PARTS + 1):
        allowed: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Question]] = {}
        for parts in combinations(among, size):
            if {"caller", "resource"} <= {*parts}:
                continue  # somebody else's right to something else
            for other in _changed([question], parts, values, own_account):
                decision = other.ask(book.policy)
                if decision.allowed:
                    allowed.setdefault((parts, decision.policy_ids), []).append(other)
        if allowed:
            yield from _told(allowed, question, values)
            return


def _told(
    allowed: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Question]], asked: Question, values: Values
) -> Iterator[Near]:
    for (parts, rules), others in allowed.items():
        said: dict[str, set[int]] = {}
        for other in _least_changed(others, asked):
            words = [_said(part, other, asked) for part in parts if part != "count"]
            said.setdefault(" and ".join(words), set()).add(other.count)
        for change, counts in said.items():
            fitting = spans(ranges(counts, [*values.counts_of(asked.action), asked.count]))
            points = [change] if change else []
            yield Near(" and ".join([*points, f"count {fitting}"] if "count" in parts else points), rules)


def spans(found: Iterable[tuple[int, int]]) -> str:
    """`1 to 10, 12`."""
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in found)


def _least_changed(others: list[Question], asked: Question) -> list[Question]:
    """Those whose door differs in the fewest points: who needs an endpoint need not change the address too."""
    distance = {other: _distance(other, asked) for other in others}
    return [other for other in others if distance[other] == min(distance.values())]


def _distance(other: Question, asked: Question) -> int:
    return sum(getattr(other.caller, name) != getattr(asked.caller, name) for name in ("via", "source_ip", "vpce"))


def _changed(questions: list[Question], parts: tuple[str, ...], values: Values, own_account: str) -> list[Question]:
    for part in parts:
        questions = [other for question in questions for other in _others(question, part, values, own_account)]
    return questions


def _others(question: Question, part: str, values: Values, own_account: str) -> Iterator[Question]:
    """The same question with another value in one part, if its kind of caller and action can have one."""
    asked = question.caller
    if part == "count":
        yield from (replace(question, count=n) for n in values.counts_of(question.action) if n != question.count)
    elif part == "door":
        yield from (replace(question, caller=visit) for visit in values.visits(asked) if visit != asked)
    elif part == "caller":
        for other in (caller(name, own_account) for name in values.callers if name != asked.id):
            same_kind = other.via != "invoke" and asked.via != "invoke"
            door = through(other, asked.via, asked.source_ip, asked.vpce) if same_kind else other
            yield replace(question, caller=door)
    elif part == "action":
        for action in ACTIONS:
            if action != question.action and (isinstance(question.resource, CredentialId) or action == OPERATE):
                yield replace(question, action=action, count=question.count if action == "vend" else 1)
    else:
        named = (other for other in values.resources_of(question.action) if not str(other).endswith(f"/{STRANGE_NAME}"))
        others = (other for other in named if other != question.resource)
        yield from (replace(question, resource=other) for other in others)


def _said(part: str, other: Question, asked: Question) -> str:
    if part == "caller":
        return f"caller {other.caller.id}"
    if part == "action":
        return f"action {other.action}"
    if part == "resource":
        return f"resource {written(other.resource)}"
    now, then = asked.caller, other.caller
    points = (
        ("via", now.via, then.via),
        (
            "source IP",
            now.source_ip,
            then.source_ip and then.source_ip.replace(STRANGE_ADDRESS, f"(other, as {STRANGE_ADDRESS})"),
        ),
        ("vpce", now.vpce, then.vpce and then.vpce.replace(STRANGE_ENDPOINT, "(any)")),
    )
    return " and ".join(f"{name} {after or 'unknown'}" for name, before, after in points if before != after)
