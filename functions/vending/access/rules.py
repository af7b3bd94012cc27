"""The policy as a text with rules in it: what each one is about, where it stands, and which credentials they name or miss.

Nothing is decided here. What is said is read off the heads of the rules, and only what surely holds is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cedarpy

from imburse_auth.credential import CredentialId
from vending.access.caller import canonical_id
from vending.access.limit import Budget, budgets_of
from vending.access.policy import OPERATE, SCHEMA_FILE, Policy, System

ACTIONS = ("vend", "inspect", OPERATE)

# A `;` ends a rule, unless it stands in a text or a comment.
_PIECE = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|;|\s+|[^\s;"/]+|.', re.DOTALL)
_GROUPS = {"Account": "Caller", "Environment": "Credential"}  # what holds what


@dataclass(frozen=True)
class Statement:
    """One rule as it is written, from its first annotation to its `;`, and the line (from 1) where that begins."""

    text: str
    line: int


@dataclass(frozen=True)
class Scope:
    """Whom or what the head of a rule means: `exactly` that one, or all `within` a group; anybody if both are None.

    `kind` is the entity type, "" where the head leaves it open.
    """

    kind: str = ""
    exactly: str | None = None
    within: str | None = None

    @classmethod
    def of(cls, part: Mapping[str, Any]) -> Scope:
        """Read `principal` or `resource` of a rule's JSON form."""
        group = part.get("entity") or (part.get("in") or {}).get("entity")
        if group is None:
            return cls(part.get("entity_type", ""))
        kind, name = group["type"], group["id"]
        # `principal in Caller::"x"` is that caller alone: only accounts and environments hold others.
        if part["op"] != "==" and kind in _GROUPS:
            return cls(_GROUPS[kind], within=name)
        return cls(kind, exactly=name)

    @property
    def is_open(self) -> bool:
        """Whether it leaves out nobody and nothing of its kind."""
        return self.exactly is None and self.within is None


@dataclass(frozen=True)
class Rule:
    """A permit or forbid. `key` is Cedar's own id, `policy<n>`; `id` its `@id`, or the key without one."""

    key: str
    text: str
    line: int
    body: Mapping[str, Any] = field(repr=False, compare=False)
    budget: Budget | None = None

    @property
    def id(self) -> str:
        """What stands in the audit record."""
        return self.annotations.get("id") or self.key

    @property
    def annotations(self) -> dict[str, str]:
        """`@name("value")`, by name."""
        return dict(self.body.get("annotations") or {})

    @property
    def permits(self) -> bool:
        """A permit, and no forbid."""
        return bool(self.body["effect"] == "permit")

    @property
    def conditional(self) -> bool:
        """Whether it has a `when` or `unless`."""
        return bool(self.body["conditions"])

    @property
    def caller(self) -> Scope:
        """Whom it is about."""
        return Scope.of(self.body["principal"])

    @property
    def resource(self) -> Scope:
        """What it is about."""
        return Scope.of(self.body["resource"])

    @property
    def any_action(self) -> bool:
        """Whether its head leaves the action open."""
        return bool(self.body["action"]["op"] == "All")

    @property
    def actions(self) -> frozenset[str]:
        """The actions it can bear on; a permit gives `operate` only by its name (see Policy)."""
        action = self.body["action"]
        if self.any_action:
            return frozenset(ACTIONS) - ({OPERATE} if self.permits else set())
        return frozenset(entity["id"] for entity in action.get("entities", [action.get("entity")]))

    def names(self, kind: str) -> frozenset[str]:
        """Every entity of that type in its head and conditions."""
        return frozenset(_named(self.body, kind))

    def could_mean(self, credential: CredentialId) -> bool:
        """Whether its head lets this credential be the resource."""
        scope = self.resource
        if scope.kind not in {"", "Credential"}:
            return False
        return scope.exactly in {None, str(credential)} and scope.within in {None, credential.environment}

    @cached_property
    def misnamed(self) -> str | None:
        """Why its head can never hold, whoever asks for whatever; None if it can."""
        caller, resource = self.caller, self.resource
        if caller.exactly is not None:
            try:
                known_as = canonical_id(caller.exactly)
            except ValueError as exc:
                return f"no caller can be {json.dumps(caller.exactly)}: {exc}"
            if known_as != caller.exactly:
                return f'no caller is named {json.dumps(caller.exactly)} here: write Caller::"{known_as}"'
        if caller.within is not None and not re.fullmatch("[0-9]{12}", caller.within):
            return f"no AWS account is named {json.dumps(caller.within)}: it has twelve digits"
        try:
            if resource.kind == "System" and resource.exactly not in {None, System().name}:
                return f'there is no System::{json.dumps(resource.exactly)}, only System::"{System().name}"'
            if resource.kind == "Credential" and resource.exactly is not None:
                CredentialId.parse(resource.exactly)
            if resource.within is not None:
                CredentialId(resource.within, "any")
        except ValueError as exc:
            return f"no credential can be meant: {exc}"
        return None


class RuleBook:
    """The rules of one stage, in the order of the file. Immutable."""

    def __init__(self, text: str, schema: str) -> None:
        """Parse and validate as the functions do. Raises ValueError with what is wrong."""
        self.policy = Policy(text, schema)
        bodies = json.loads(cedarpy.policies_to_json_str(text))
        budgets = budgets_of(bodies["staticPolicies"])
        # Cedar numbers what is written, templates too.
        written = {f"policy{number}": statement for number, statement in enumerate(statements(text))}
        self.rules = tuple(
            Rule(key, statement.text, statement.line, bodies["staticPolicies"][key], budgets.get(key))
            for key, statement in written.items()
            if key in bodies["staticPolicies"]
        )
        # A template (`?principal`) decides nothing: nobody fills it in here.
        self.templates = tuple(statement for key, statement in written.items() if key in bodies["templates"])

    @classmethod
    def load(cls, path: Path) -> RuleBook:
        """Read `<stage>.cedar` and the schema beside it. Raises ValueError, which names the file."""
        try:
            return cls(path.read_text(), path.with_name(SCHEMA_FILE).read_text())
        except (OSError, ValueError) as exc:
            raise ValueError(f"access policy {path.name}: {exc}") from exc

    def dangling(self, known: Collection[CredentialId]) -> dict[str, tuple[str, ...]]:
        """By rule id, the credentials that a rule names and that are not among the known."""
        exist = {str(credential) for credential in known}
        missing: dict[str, set[str]] = {}
        for rule in self.rules:
            if absent := rule.names("Credential") - exist:
                missing.setdefault(rule.id, set()).update(absent)
        return {rule: tuple(sorted(absent)) for rule, absent in missing.items()}

    def unreached(self, known: Collection[CredentialId]) -> tuple[CredentialId, ...]:
        """Of the known credentials, those of which surely nobody may vend: no permit means them, or a forbid stands before."""
        return tuple(credential for credential in known if not self._reached(credential))

    def _reached(self, credential: CredentialId) -> bool:
        about = [rule for rule in self.rules if "vend" in rule.actions and rule.could_mean(credential)]
        if any(not rule.permits and not rule.conditional and rule.caller.is_open for rule in about):
            return False
        return any(rule.permits and rule.misnamed is None for rule in about)


def statements(text: str) -> Iterator[Statement]:
    """The rules as they are written, also of a text that is no valid Cedar; a last one may lack its `;`."""
    start, line, begun_on = None, 1, 1
    for piece in _PIECE.finditer(text):
        blank = piece[0].isspace() or piece[0].startswith("//")
        if start is None and not blank:
            start, begun_on = piece.start(), line
        line += piece[0].count("\n")
        if piece[0] == ";" and start is not None:
            yield Statement(text[start : piece.end()], begun_on)
            start = None
    if start is not None:
        yield Statement(text[start:].rstrip(), begun_on)


def _named(tree: object, kind: str) -> Iterator[str]:
    nodes = [tree]
    while nodes:  # rather than by recursion: a chain of `||` is one level deeper with each
        node = nodes.pop()
        if isinstance(node, dict):
            if node.get("type") == kind and isinstance(node.get("id"), str):
                yield node["id"]
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
