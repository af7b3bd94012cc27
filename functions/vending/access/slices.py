"""Which rules can bear on what a caller asks? Those whose head names the caller, or a group it is in, or leaves open who asks.

Cedar asks every rule it is given, one after the other: 1,000 of them cost twelve times as much as one. Leaving out those whose
head names somebody else changes nothing in its answer, errors included: it looks at a rule's head first, and at the conditions
only if the head fits. Cedar's authors have proved it: `isAuthorized_eq_for_scope_based_policy_slice` in
cedar-policy/cedar-spec, cedar-lean/Cedar/Thm/PolicySlice.lean. `tests/unit/test_policy_slices.py` tries it on this module.

What is asked for plays no part in it: how long a refusal takes must not tell whether a rule names a credential.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import cedarpy

# Making a rule part of a slice takes about as long as asking so many (7 and 1 µs here, 12 and 0.6 elsewhere).
ASKED_FOR_ONE_MADE = 16
# A slice that is kept is asked again and again: it is worth making if all rules are at least so many times as many.
OF_ONE_KEPT = 2
# The slices that are kept hold at most so many rules for each one of the policy: some 5 KB a rule.
KEPT_FOR_ONE = 4

Uid = tuple[str, str]


class Slices:
    """The rules of a policy, and sets of those that can bear on a caller, made when it first asks. Serves all threads.

    What is kept is bounded by the policy: all callers that no rule names, of accounts that no rule names, share one.
    """

    def __init__(self, text: str, rules: Mapping[str, Mapping[str, Any]]) -> None:
        """`rules` is `staticPolicies` of the text's JSON: templates decide nothing. Raises ValueError if it is no policy."""
        self._whole = cedarpy.PolicySet.from_str(text)
        self._rules = rules
        self._worth_it = len(rules) >= ASKED_FOR_ONE_MADE
        self._by_caller: dict[Uid | None, list[str]] = {}  # None: more than one that has a name
        for rule, body in rules.items():
            self._by_caller.setdefault(_named(body["principal"]), []).append(rule)
        self._kept: dict[tuple[Uid | None, ...], cedarpy.PolicySet] = {}
        self._room = KEPT_FOR_ONE * len(rules)
        self._lock = Lock()

    def bearing_on(self, caller: Sequence[Mapping[str, str]]) -> cedarpy.PolicySet:
        """Every rule that could apply, and maybe more, under the ids they have in the whole policy.

        `caller` is the caller itself and every group that it is in, as Cedar is told: `{"type", "id"}`.
        """
        if not self._worth_it:
            return self._whole
        names = (None, *((uid["type"], uid["id"]) for uid in caller))
        heads = tuple(name for name in names if name in self._by_caller)
        kept = self._kept.get(heads)
        return self._made(heads) if kept is None else kept

    def _made(self, heads: tuple[Uid | None, ...]) -> cedarpy.PolicySet:
        size = sum(len(self._by_caller[head]) for head in heads)
        with self._lock:
            if heads in self._kept:  # by another thread meanwhile
                return self._kept[heads]
            keep = size <= self._room
            if size * (OF_ONE_KEPT if keep else ASKED_FOR_ONE_MADE) > len(self._rules):
                return self._whole
            made = self._part([rule for head in heads for rule in self._by_caller[head]])
            if keep:
                self._room -= size
                self._kept[heads] = made
            return made

    def _part(self, rules: Sequence[str]) -> cedarpy.PolicySet:
        part = {"staticPolicies": {rule: self._rules[rule] for rule in rules}, "templates": {}, "templateLinks": []}
        try:
            return cedarpy.PolicySet.from_json_str(json.dumps(part))
        except (ValueError, RecursionError):
            # Cedar reads its own JSON less deep than its text: a chain of some fifty `||` is too much.
            return self._whole


def _named(scope: Mapping[str, Any]) -> Uid | None:
    """The entity that `principal` of a head must be, or be in; None of any other form: that could fit all."""
    match scope:
        case {"op": "==" | "in", "entity": {"type": str(kind), "id": str(name)}}:
            return kind, name
        case {"op": "is", "in": {"entity": {"type": str(kind), "id": str(name)}}}:
            return kind, name
        case _:
            return None
