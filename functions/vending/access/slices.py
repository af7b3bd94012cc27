"""Which rules can bear on a request? Those whose head names its caller and resource, or a group of theirs, or leaves it open.

Cedar asks every rule it is given, one after the other: 1,000 of them cost eight times as much as one. Leaving out those whose
head names somebody or something else changes nothing in its answer, errors included: it looks at a rule's head first, and at
the conditions only if the head fits. Cedar's authors have proved it: `isAuthorized_eq_for_scope_based_policy_slice` in
cedar-policy/cedar-spec, cedar-lean/Cedar/Thm/PolicySlice.lean. `tests/unit/test_policy_slices.py` tries it on this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from threading import Lock
from typing import Any

import cedarpy

# Making a rule part of a slice takes about as long as asking this many (12 and 0.6 µs here).
ASKED_FOR_ONE_MADE = 16
# The slices that are kept hold at most so many rules for each one of the policy: some 5 KB a rule.
KEPT_FOR_ONE = 4

Uid = tuple[str, str]
Head = tuple[Uid | None, Uid | None]  # whom it names, and what; None: it is about more than one that has a name


class Slices:
    """The rules of a policy, and sets of those that can bear on a request, made when first asked for. Serves all threads.

    What is kept is bounded by the policy: no caller and no credential that no rule names adds to it.
    """

    def __init__(self, text: str, rules: Mapping[str, Mapping[str, Any]]) -> None:
        """`rules` is `staticPolicies` of the text's JSON: templates decide nothing. Raises ValueError if it is no policy."""
        self._whole = cedarpy.PolicySet.from_str(text)
        self._rules = rules
        self._worth_it = len(rules) >= ASKED_FOR_ONE_MADE
        self._by_head: dict[Head, list[str]] = {}
        for rule, body in rules.items():
            self._by_head.setdefault((_named(body["principal"]), _named(body["resource"])), []).append(rule)
        self._kept: dict[tuple[Head, ...], cedarpy.PolicySet] = {}
        self._room = KEPT_FOR_ONE * len(rules)
        self._lock = Lock()

    def bearing_on(
        self, caller: Sequence[Mapping[str, str]], resource: Sequence[Mapping[str, str]]
    ) -> cedarpy.PolicySet:
        """Every rule that could apply, and maybe more, under the ids they have in the whole policy.

        Each of the two is the entity itself and every group that it is in, as Cedar is told: `{"type", "id"}`.
        """
        if not self._worth_it:
            return self._whole
        callers, resources = ([None, *((uid["type"], uid["id"]) for uid in uids)] for uids in (caller, resource))
        heads = tuple(head for head in product(callers, resources) if head in self._by_head)
        kept = self._kept.get(heads)
        return self._made(heads) if kept is None else kept

    def _made(self, heads: tuple[Head, ...]) -> cedarpy.PolicySet:
        rules = [rule for head in heads for rule in self._by_head[head]]
        if len(rules) * ASKED_FOR_ONE_MADE > len(self._rules):
            return self._whole
        slice_ = {"staticPolicies": {rule: self._rules[rule] for rule in rules}, "templates": {}, "templateLinks": []}
        try:
            made = cedarpy.PolicySet.from_json_str(json.dumps(slice_))
        except (ValueError, RecursionError):
            # Cedar reads its own JSON less deep than its text: a chain of some fifty `||` is too much.
            made = self._whole
        with self._lock:
            if heads not in self._kept and self._room >= len(rules):
                self._room -= len(rules)
                self._kept[heads] = made
        return made


def _named(scope: Mapping[str, Any]) -> Uid | None:
    """The entity that `principal` or `resource` of a head must be, or be in; None of any other form: that could fit all."""
    match scope:
        case {"op": "==" | "in", "entity": {"type": str(kind), "id": str(name)}}:
            return kind, name
        case {"op": "is", "in": {"entity": {"type": str(kind), "id": str(name)}}}:
            return kind, name
        case _:
            return None
