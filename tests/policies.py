"""Random small policies, and every request that their few names allow: what the policy's tools say is tried against these."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from hypothesis import strategies as st

from imburse_auth.credential import CredentialId
from imburse_vending.policy_ask import Question
from tests.machine import ACCOUNT, POLICY_DIR
from vending.access.caller import Caller
from vending.access.policy import Policy, System
from vending.access.rules import RuleBook

SCHEMA = (POLICY_DIR / "schema.cedarschema").read_text()
OTHER_ACCOUNT = "210987654321"
ROLE_A, ROLE_B = f"arn:aws:iam::{ACCOUNT}:role/a", f"arn:aws:iam::{ACCOUNT}:role/b"
ROLE_C = f"arn:aws:iam::{OTHER_ACCOUNT}:role/c"
ENDPOINT = "vpce-0aa"
BIG = 2**63 - 1

_PRINCIPALS = [
    "principal",
    "principal is Caller",
    *(
        f'principal == Caller::"{name}"'
        for name in (
            *(ROLE_A, ROLE_B, ROLE_C, "alias/x"),
            # These can be nobody's.
            *(f"arn:aws:iam::{ACCOUNT}:role/path/a", f"arn:aws:sts::{ACCOUNT}:assumed-role/a/session", "alias/7"),
        )
    ),
    *(f'principal in Account::"{account}"' for account in (ACCOUNT, OTHER_ACCOUNT, "12")),
]
_ACTIONS = [
    "action",
    *(f'action == Action::"{name}"' for name in ("vend", "inspect", "operate")),
    'action in [Action::"vend", Action::"inspect"]',
    'action in [Action::"vend", Action::"operate"]',
]
_RESOURCES = [
    "resource",
    "resource is Credential",
    *(f'resource == Credential::"{name}"' for name in ("sandbox/a", "sandbox/b", "production/a", "nothing")),
    *(f'resource in Environment::"{name}"' for name in ("sandbox", "production")),
    'resource == System::"vending"',
]
_CONDITIONS = [
    *[""] * 6,
    "when { context.count <= 3 }",
    "when { context.count > 3 }",
    "when { context.count < 1 }",
    "unless { context.count == 2 }",
    f"when {{ context.count + {BIG - 3} > 0 }}",  # fails above 3
    'when { context.via == "api" }',
    'when { context.via == "invoke" }',
    'when { context.via != "invoke" && context.count > 500 }',
    "unless { context has vpce }",
    f'when {{ context has vpce && context.vpce == "{ENDPOINT}" }}',
    'when { context has sourceIp && context.sourceIp.isInRange(ip("10.0.0.0/8")) }',
    'when { context has sourceIp && context.sourceIp.isInRange(ip("10.0.0.0/8")) } unless { context has vpce }',
    f'when {{ principal == Caller::"{ROLE_A}" }}',
    f'when {{ principal in Account::"{OTHER_ACCOUNT}" }}',
    "when { 1 == 2 }",
]
CREDENTIALS = (
    *(CredentialId("sandbox", name) for name in "abc"),
    CredentialId("production", "a"),
    CredentialId("x", "y"),
)


def rules(*, principals: Sequence[str] = (), resources: Sequence[str] = ()) -> st.SearchStrategy[tuple[str, ...]]:
    """Rules by their parts, for `rule_text`, with these in their heads besides the usual; some do not fit the schema."""
    return st.tuples(
        st.sampled_from(["permit", "permit", "forbid"]),
        st.sampled_from([*_PRINCIPALS, *principals]),
        st.sampled_from(_ACTIONS),
        st.sampled_from([*_RESOURCES, *resources]),
        st.sampled_from(_CONDITIONS),
        st.sampled_from(["", "", "5/minute", "9/minute"]),
    )


RULES = rules()


def rule_text(number: int, rule: tuple[str, ...]) -> str:
    """One rule, with an id of its own."""
    effect, principal, action, resource, condition, budget = rule
    limit = f'@budget("{budget}") ' if budget and effect == "permit" else ""
    return f'@id("r{number}") {limit}{effect} ({principal}, {action}, {resource}) {condition};'


@cache
def _fits(rule: tuple[str, ...]) -> bool:
    try:
        Policy(rule_text(0, rule), SCHEMA)
    except ValueError:
        return False
    return True


def texts(*, most: int = 5, of: st.SearchStrategy[tuple[str, ...]] = RULES) -> st.SearchStrategy[tuple[str, ...]]:
    """The rules of a policy, one text each; whatever does not fit the schema is left out."""
    return st.lists(of.filter(_fits), min_size=1, max_size=most).map(
        lambda rules: tuple(rule_text(number, rule) for number, rule in enumerate(rules))
    )


def policy(rules: tuple[str, ...]) -> Policy:
    """The policy of these rules."""
    return Policy("\n".join(rules), SCHEMA)


def book(rules: tuple[str, ...]) -> RuleBook:
    """The rules, one a line."""
    return RuleBook("\n".join(rules), SCHEMA)


def _visits() -> list[Caller]:
    doors: list[dict[str, Any]] = [
        {"via": "api", "source_ip": address, "vpce": endpoint}
        for address, endpoint in itertools.product(("10.1.2.3", "192.0.2.1", None), (None, ENDPOINT, "vpce-0bb"))
    ]
    roles = [Caller(f"arn:aws:iam::{ACCOUNT}:role/{name}", ACCOUNT, "api") for name in ("a", "b", "stranger")]
    roles += [Caller(f"arn:aws:iam::{OTHER_ACCOUNT}:role/{name}", OTHER_ACCOUNT, "api") for name in ("c", "d")]
    roles += [Caller("arn:aws:iam::999999999999:user/path/somebody", "999999999999", "api")]
    visits = [replace(role, **door) for role in roles for door in [*doors, {"via": "proof"}]]
    return visits + [Caller(f"alias/{name}", ACCOUNT, "invoke") for name in ("x", "y")]


def _resources(action: str) -> tuple[CredentialId | System, ...]:
    return (*CREDENTIALS, System()) if action == "operate" else CREDENTIALS


QUESTIONS = tuple(
    Question(visit, action, resource, count)
    for visit in _visits()
    for action in ("vend", "inspect", "operate")
    for resource in _resources(action)
    for count in ((1, 2, 3, 4, 500) if action == "vend" else (1,))
)

# The same with the machine in another account, to which its aliases belong then.
ELSEWHERE = tuple(
    replace(question, caller=replace(question.caller, account=OTHER_ACCOUNT))
    for question in QUESTIONS
    if question.caller.via == "invoke"
)
