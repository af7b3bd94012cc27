"""Rules about groups in a policy so large that Cedar is asked with a part of it, and rules about any action."""

from __future__ import annotations

from typing import Any
from unittest import mock

import cedarpy
import pytest

from imburse_auth import CredentialId
from tests.machine import ACCOUNT, POLICY_DIR
from vending.access.caller import Caller
from vending.access.policy import Policy

SCHEMA = (POLICY_DIR / "schema.cedarschema").read_text()
TENANT_A = CredentialId("sandbox", "tenant-a")
ORDERS = Caller(f"arn:aws:iam::{ACCOUNT}:role/orders", ACCOUNT, "api")
OTHERS = "".join(
    f'permit (principal == Caller::"alias/x{n}", action == Action::"vend", resource == Credential::"x/y{n}");'
    for n in range(100)
)


@pytest.mark.parametrize("principal", [f'== Caller::"{ORDERS.id}"', f'in Account::"{ACCOUNT}"'])
@pytest.mark.parametrize("resource", [f'== Credential::"{TENANT_A}"', 'in Environment::"sandbox"'])
def test_a_rule_about_a_group_decides_among_a_hundred_others_too(principal: str, resource: str) -> None:
    rules = Policy(
        OTHERS + f'@id("it") permit (principal {principal}, action == Action::"vend", resource {resource});', SCHEMA
    )
    asked: list[cedarpy.PolicySet] = []
    ask = cedarpy.is_authorized

    def watched(request: Any, policies: cedarpy.PolicySet, entities: Any) -> cedarpy.AuthzResult:
        asked.append(policies)
        return ask(request, policies, entities)

    with mock.patch.object(cedarpy, "is_authorized", watched):
        assert rules.decide(ORDERS, "vend", TENANT_A).policy_ids == ("it",)
        assert not rules.decide(ORDERS, "inspect", TENANT_A).allowed
        assert not rules.decide(Caller("alias/y", "210987654321", "invoke"), "vend", TENANT_A).allowed
    assert rules._slices._whole not in asked, "the whole policy was asked"


@pytest.mark.parametrize("action", ["inspect", "vend"])
def test_a_permit_for_any_action_holds_for_all_that_do_not_operate(action: str) -> None:
    rules = Policy("permit (principal, action, resource);", SCHEMA)
    assert rules.decide(ORDERS, action, TENANT_A).allowed
    assert not rules.decide(ORDERS, "operate", TENANT_A).allowed


def test_an_action_is_known_by_what_it_says_wherever_the_text_comes_from() -> None:
    rules = Policy("permit (principal, action, resource);", SCHEMA)
    assert not rules.decide(ORDERS, "".join(list("operate")), TENANT_A).allowed


def test_every_budget_counts_however_many_rules_allow_it() -> None:
    text = "".join(f'@id("r{n}") @budget("{n}/minute") permit (principal, action, resource);' for n in range(1, 301))
    assert len(Policy(text, SCHEMA).decide(ORDERS, "vend", TENANT_A).budgets) == 300
