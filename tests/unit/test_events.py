"""The files in events/ are what their handlers take, and each has the outcome that events/README.md promises."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.fakes import secret
from tests.machine import Context, Machine
from tests.stack import ROOT, deploy

EVENTS = ROOT / "events"
# File to tokens (0: an identity, or an order obeyed) or to the code of the refusal.
API: dict[str, int | str] = {
    "api_token": 1,
    "api_tokens": 5,
    "api_identity": 0,
    "api_production": 1,
    "api_bad_count": "invalid_request",
    "api_unknown_field": "invalid_request",
    "api_not_json": "invalid_request",
    "api_stranger": "not_authorized",
    "api_operator_vends": "not_authorized",
    "api_production_from_outside": "not_authorized",
    "api_unknown_credential": "credential_not_found",
    "api_freeze": 0,
    "api_thaw": 0,
    "api_stranger_freezes": "not_authorized",
}
INVOKE: dict[str, tuple[str, int | str]] = {
    "vend_single": ("settlement-job", 1),
    "vend_batch": ("settlement-job", 5),
    "vend_count_too_large": ("settlement-job", "InvalidRequest"),
    "vend_unknown_field": ("settlement-job", "InvalidRequest"),
    "vend_malformed_credential": ("settlement-job", "InvalidRequest"),
    "vend_unknown_credential": ("access-report", "CredentialNotFound"),
    "vend_freeze_as_a_job": ("settlement-job", "NotAuthorized"),
}

ROTATION = {f"rotate_{name}" for name in ("create", "set", "test", "finish", "unknown_step")}  # test_rotation.py

SCHEDULED = (
    "access_report",
    "refill_all",
    "refill_woken",
    "probe_all",
    "probe_one",
    "rotate_sweep",
)  # the schedules' own and those that somebody sends, see test_template.py


def event(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    production = secret(publicKey="public-production")
    machine.imburse.accept(production)
    machine.aws.put("production/tenant-a", production)
    return machine


def tokens(answer: dict[str, Any]) -> int:
    return len(answer["tokens"]) if "tokens" in answer and "requested" in answer else int("accessToken" in answer)


@pytest.mark.parametrize(("name", "outcome"), API.items())
def test_an_api_event_has_its_outcome(machine: Machine, name: str, outcome: int | str) -> None:
    if isinstance(outcome, str):
        assert machine.api_refusal(event(name)).code == outcome
        return
    response = machine.api(event(name))
    assert response["statusCode"] == 200
    assert tokens(json.loads(response["body"])) == outcome


@pytest.mark.parametrize(("name", "alias", "outcome"), [(name, *rest) for name, rest in INVOKE.items()])
def test_a_direct_event_has_its_outcome(machine: Machine, name: str, alias: str, outcome: int | str) -> None:
    if isinstance(outcome, str):
        assert machine.invoke_refusal(event(name), Context(alias)).error_type == outcome
    else:
        assert tokens(machine.invoke(event(name), Context(alias))) == outcome


@pytest.mark.parametrize("name", API)
def test_an_api_event_is_of_a_route_that_the_template_has(name: str) -> None:
    content = event(name)
    method = deploy().properties("VendingApi")["Body"]["paths"][content["resource"]]
    assert set(method) == {content["httpMethod"].lower()}
    assert content["path"] == re.sub(r"\{(\w+)\}", lambda m: content["pathParameters"][m[1]], content["resource"])
    assert content["requestContext"]["stage"] == "api"
    assert content["requestContext"]["path"] == f"/api{content['path']}"


def test_no_event_is_left_out_here_or_in_the_list() -> None:
    files = {path.stem for path in EVENTS.glob("*.json")}
    assert files == {*API, *INVOKE, *SCHEDULED, *ROTATION}
    listed = set(re.findall(r"`(\w+)\.json`", (EVENTS / "README.md").read_text(encoding="utf-8")))
    assert listed == files
