"""Schemathesis makes requests of the document, right ones and wrong ones, and holds the running API to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.specs.openapi.checks import unsupported_method

from local import openapi
from local.api_caller import LocalCaller
from local.demo_clients import Signed
from local.serving import in_background
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings
from tests.fakes import secret
from vending.record.redaction import redact

load_all_checks()
DOCUMENT = openapi.document(openapi.template_routes())
# The session signs whatever is sent; that nothing comes in unsigned is tests/e2e/test_api_front.py's.
del DOCUMENT["security"], DOCUMENT["components"]["securitySchemes"]
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
POLICY = """
@id("anything") permit (principal, action in [Action::"vend", Action::"inspect"], resource);
@id("brake") permit (principal, action == Action::"operate", resource in Environment::"sandbox");
"""
CALLER = LocalCaller("FUZZER", "fuzzer-secret", f"arn:aws:iam::{ACCOUNT_ID}:role/fuzzer")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, requests.Session]]:
    policy = tmp_path_factory.mktemp("policy") / "fuzz.cedar"
    policy.write_text(POLICY)
    stack = StackSettings(
        secrets={"imburse/sandbox/tenant-a": json.dumps(secret(accountId="account-1", tenantId="tenant-a"))},
        callers={CALLER.access_key_id: CALLER},
        policy=policy,
        concurrency=2,
    )
    with in_background(LocalStack(stack)) as running, requests.Session() as session:
        session.auth = Signed(CALLER.access_key_id, CALLER.secret_access_key, REGION)
        yield running.api_url, session


@SCHEMA.parametrize()
@settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_api_does_what_the_document_says(case: schemathesis.Case[Any], api: tuple[str, requests.Session]) -> None:
    url, session = api
    why = case.body.get("why") if isinstance(case.body, dict) else None
    # What is printable, and what looks like a key, JSON Schema cannot say; the description does.
    assume(not isinstance(why, str) or (why.isprintable() and redact(why) == why))
    # API Gateway answers a method that a path does not have with a 403, not with the 405 that this check wants.
    case.call_and_validate(base_url=url, session=session, excluded_checks=[unsupported_method], timeout=30)


def test_there_are_checks_to_pass() -> None:
    assert len(CHECKS.get_all()) > 5
