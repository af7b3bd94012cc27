"""How much does a rule allow? The `@budget("600/minute")` that stands on a permit, read when the policy is loaded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANNOTATION = "budget"
UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}

_BUDGET = re.compile(r"(?P<limit>[1-9][0-9]{0,8})/(?P<unit>second|minute|hour|day)")
_RULE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class Budget:
    """At most `limit` tokens in each window of `window_seconds`, by caller and credential, under the rule `policy_id`.

    Windows are fixed and begin at whole seconds, minutes, hours or days of UTC, so twice the limit fits around the turn
    of one.
    """

    policy_id: str
    limit: int
    window_seconds: int

    @classmethod
    def parse(cls, policy_id: str, text: object) -> Budget:
        """Read `600/minute`. Raises ValueError, which names the rule."""
        match = _BUDGET.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(
                f"{policy_id}: @{ANNOTATION} must be <whole number from 1>/<second|minute|hour|day>, as in 600/minute"
            )
        return cls(policy_id, int(match["limit"]), UNIT_SECONDS[match["unit"]])


def budgets_of(rules: Mapping[str, Any]) -> dict[str, Budget]:
    """The budgets of a policy, by Cedar's own id of the rule; `rules` is `staticPolicies` of the policy's JSON.

    Raises ValueError, which names the rule, for whatever would be read as "no limit" and is not meant so: a malformed
    budget, a misspelt name, one on a forbid, or one on a rule without an `@id` of its own, which names its counter.
    """
    budgets: dict[str, Budget] = {}
    annotations = {rule: dict(body.get("annotations") or {}) for rule, body in rules.items()}
    ids = [named.get("id") for named in annotations.values()]
    for rule, named in annotations.items():
        policy_id = named.get("id") or rule
        for name in named.keys() - {ANNOTATION, "id"}:
            if difflib.get_close_matches(name.lower(), [ANNOTATION], cutoff=0.7):
                raise ValueError(f"{policy_id}: @{name} is nearly @{ANNOTATION}")
        if ANNOTATION not in named:
            continue
        if rules[rule].get("effect") != "permit":
            raise ValueError(f"{policy_id}: @{ANNOTATION} limits a permit; a forbid has none")
        if not (isinstance(named.get("id"), str) and _RULE_ID.fullmatch(named["id"]) and ids.count(named["id"]) == 1):
            raise ValueError(
                f"{policy_id}: a rule with @{ANNOTATION} needs an @id of its own, of 1 to 128 letters, digits, '.', '_' or '-'"
            )
        budgets[rule] = Budget.parse(policy_id, named[ANNOTATION])
    return budgets
