"""Which caller may do what with which credential: Cedar rules, parsed and validated once, denying by default."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cedarpy

from imburse_auth.credential import CredentialId
from vending.access.caller import Caller

SCHEMA_FILE = "schema.cedarschema"


@dataclass(frozen=True)
class Decision:
    """Allowed or not, and the ids (`@id`, else `policy<n>`) of the rules that decided; none for a default denial."""

    allowed: bool
    policy_ids: tuple[str, ...]


class Policy:
    """A stage's rules. Immutable, so one object serves all threads."""

    def __init__(self, text: str, schema: str) -> None:
        """Parse and validate. Raises ValueError with what is wrong: a policy that is not sound decides nothing."""
        result = cedarpy.validate_policies(text, schema)
        if not result.validation_passed:
            raise ValueError("; ".join(str(error) for error in result.errors) or "is not valid")
        self._policies = cedarpy.PolicySet.from_str(text)
        self._named = frozenset(_credentials_in(json.loads(cedarpy.policies_to_json_str(text))))

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

    def decide(self, caller: Caller, action: str, credential: CredentialId, count: int = 1) -> Decision:
        """Ask Cedar. A rule that fails while it is evaluated denies: a broken `forbid` must not open a door."""
        context: dict[str, Any] = {"count": count, "via": caller.via}
        if caller.source_ip is not None:
            context["sourceIp"] = {"__extn": {"fn": "ip", "arg": caller.source_ip}}
        if caller.vpce is not None:
            context["vpce"] = caller.vpce
        principal, resource = _uid("Caller", caller.id), _uid("Credential", str(credential))
        account, environment = _uid("Account", caller.account), _uid("Environment", credential.environment)
        result = cedarpy.is_authorized(
            {"principal": principal, "action": _uid("Action", action), "resource": resource, "context": context},
            self._policies,
            [
                {"uid": principal, "attrs": {}, "parents": [account]},
                {"uid": resource, "attrs": {}, "parents": [environment]},
                {"uid": account, "attrs": {}, "parents": []},
                {"uid": environment, "attrs": {}, "parents": []},
            ],
        )
        diagnostics = result.diagnostics
        annotations = diagnostics.id_annotations_by_reason
        policy_ids = tuple(sorted(annotations.get(rule) or rule for rule in diagnostics.reasons))
        return Decision(result.allowed and not diagnostics.errors, policy_ids)


def _uid(kind: str, name: str) -> dict[str, str]:
    # As parts, never as Cedar text: a name cannot end its own quotes.
    return {"type": kind, "id": name}


def _credentials_in(node: object) -> Iterable[str]:
    """Every `Credential::"..."` in the JSON form of the rules."""
    parts = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    if isinstance(node, dict) and node.get("type") == "Credential" and isinstance(node.get("id"), str):
        yield node["id"]
    for part in parts:
        yield from _credentials_in(part)
