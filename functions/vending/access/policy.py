"""Which caller may do what with which credential: Cedar rules, parsed and validated once, denying by default."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cedarpy

from imburse_auth.credential import CredentialId
from vending.access.caller import Caller
from vending.access.limit import Budget, budgets_of
from vending.access.slices import Slices

SCHEMA_FILE = "schema.cedarschema"
OPERATE = "operate"  # never meant by a rule that is about actions in general: it needs one that names it


@dataclass(frozen=True)
class System:
    """What is operated as a whole, `System::"vending"` in the policy: everything, and every caller."""

    name: str = "vending"


@dataclass(frozen=True)
class Decision:
    """Allowed or not, and the ids (`@id`, else `policy<n>`) of the rules that decided; none for a default denial.

    `budgets` are those that must all have room: of every rule that allowed it, or none if one of them has no budget.
    """

    allowed: bool
    policy_ids: tuple[str, ...]
    budgets: tuple[Budget, ...] = ()


class Policy:
    """A stage's rules. What they say never changes, so one object serves all threads."""

    def __init__(self, text: str, schema: str) -> None:
        """Parse and validate. Raises ValueError with what is wrong: a policy that is not sound decides nothing."""
        result = cedarpy.validate_policies(text, schema)
        if not result.validation_passed:
            raise ValueError("; ".join(str(error) for error in result.errors) or "is not valid")
        rules: dict[str, dict[str, Any]] = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
        self._slices = Slices(text, rules)
        self._named = frozenset(_credentials_in(rules.values()))
        self._budgets = budgets_of(rules)
        self._operating = frozenset(rule for rule, body in rules.items() if _names_operate(body))

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read `<stage>.cedar` and the schema beside it. Raises ValueError, which names the file."""
        try:
            return cls(path.read_text(), path.with_name(SCHEMA_FILE).read_text())
        except (OSError, ValueError) as exc:
            raise ValueError(f"access policy {path.name}: {exc}") from exc

    def names(self, credential: str) -> bool:
        """Whether some rule names this credential itself."""
        return credential in self._named

    def decide(self, caller: Caller, action: str, resource: CredentialId | System, count: int = 1) -> Decision:
        """Ask Cedar. A rule that fails while it is evaluated denies: a broken `forbid` must not open a door."""
        context: dict[str, Any] = {"count": count, "via": caller.via}
        if caller.source_ip is not None:
            context["sourceIp"] = {"__extn": {"fn": "ip", "arg": caller.source_ip}}
        if caller.vpce is not None:
            context["vpce"] = caller.vpce
        principal, account = _uid("Caller", caller.id), _uid("Account", caller.account)
        if isinstance(resource, CredentialId):
            asked_of, environments = _uid("Credential", str(resource)), [_uid("Environment", resource.environment)]
        else:
            asked_of, environments = _uid("System", resource.name), []
        result = cedarpy.is_authorized(
            {"principal": principal, "action": _uid("Action", action), "resource": asked_of, "context": context},
            # By the caller and its group, as told below: a rule about one that Cedar is not told of could not apply.
            self._slices.bearing_on([principal, account]),
            [
                {"uid": principal, "attrs": {}, "parents": [account]},
                {"uid": asked_of, "attrs": {}, "parents": environments},
                *({"uid": parent, "attrs": {}, "parents": []} for parent in (account, *environments)),
            ],
        )
        diagnostics = result.diagnostics
        annotations = diagnostics.id_annotations_by_reason
        policy_ids = tuple(sorted(annotations.get(rule) or rule for rule in diagnostics.reasons))
        if not result.allowed or diagnostics.errors:
            return Decision(allowed=False, policy_ids=policy_ids)
        if action == OPERATE and not self._operating.intersection(diagnostics.reasons):
            return Decision(allowed=False, policy_ids=())
        budgets = [self._budgets.get(rule) for rule in sorted(diagnostics.reasons)]
        limits = tuple(budget for budget in budgets if budget is not None)
        # A rule without a budget allows it by itself, whatever the others would have to count.
        return Decision(allowed=True, policy_ids=policy_ids, budgets=limits if len(limits) == len(budgets) else ())


def _uid(kind: str, name: str) -> dict[str, str]:
    # As parts, never as Cedar text: a name cannot end its own quotes.
    return {"type": kind, "id": name}


def _names_operate(rule: Mapping[str, Any]) -> bool:
    """Whether the head of a rule has `action == Action::"operate"`, or `in` a list that holds it."""
    scope = rule["action"]
    actions = [scope["entity"]] if "entity" in scope else scope.get("entities", [])
    return _uid("Action", OPERATE) in actions


def _credentials_in(rules: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Every `Credential::"..."` in the JSON form of the rules."""
    # Not what annotations say: they are notes, whatever they look like.
    nodes: list[Any] = [part for rule in rules for name, part in rule.items() if name != "annotations"]
    while nodes:  # rather than by recursion: a chain of `||` is one level deeper with each
        node = nodes.pop()
        if isinstance(node, dict):
            if node.get("type") == "Credential" and isinstance(node.get("id"), str):
                yield node["id"]
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
