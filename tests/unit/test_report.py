import io
import itertools
import json
from typing import Any
from unittest import mock

import pytest

from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from tests.fakes import BASE_URL, secret
from tests.machine import ENVIRON, POLICY_DIR, Context, Machine, handler_module
from vending.access.policy import Policy
from vending.record.log import make_logger
from vending.report import AccessReport, ReportIncomplete

_numbers = itertools.count()


class FakeLambda:
    """Invokes the vend handler as Lambda does for an alias."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.answer: Any = None

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803 - boto3's names
        if self.answer is not None:
            return {"Payload": io.BytesIO(json.dumps(self.answer).encode())}
        try:
            answer = self.machine.invoke(json.loads(Payload), Context(alias=FunctionName.rsplit(":", 1)[-1]))
        except Exception as exc:  # noqa: BLE001 - as the runtime does
            failure = {"errorType": type(exc).__name__, "errorMessage": str(exc)}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(failure).encode())}
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}


class FakeListing:
    """Secrets Manager's listing, two names a page."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.extra: list[str] = []

    def get_paginator(self, operation: str) -> "FakeListing":
        assert operation == "list_secrets"
        return self

    def paginate(self, *, Filters: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: N803 - boto3's names
        assert Filters == [{"Key": "name", "Values": ["imburse/"]}]
        names = [*self.machine.aws.secrets, *self.extra]
        return [{"SecretList": [{"Name": name} for name in page]} for page in (names[:2], names[2:])]


class Bench:
    def __init__(self) -> None:
        self.machine = Machine()
        self.lambda_ = FakeLambda(self.machine)
        self.listing = FakeListing(self.machine)

    def run(self, seconds: float = 300) -> dict[str, Any]:
        report = AccessReport(
            vend_function=ENVIRON["VEND_FUNCTION"],
            policy=Policy.load(POLICY_DIR / "dev.cedar"),
            hosts=Hosts.parse(ENVIRON["IMBURSE_HOSTS"]),
            secrets_manager=self.listing,  # type: ignore[arg-type]
            lambda_=self.lambda_,  # type: ignore[arg-type]
            transport=self.machine.imburse.transport(),
            logger=make_logger(f"report-{next(_numbers)}"),
        )
        try:
            return report.run(Deadline.after(seconds))
        except ReportIncomplete as exc:
            failed: dict[str, Any] = json.loads(str(exc))
            assert failed["failed"]
            return failed


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_credential_it_may_inspect_is_asked_with_a_token_vended_through_its_alias(bench: Bench) -> None:
    other = secret()
    bench.machine.imburse.accept(other)
    bench.machine.aws.put("sandbox/tenant-b", other)
    bench.machine.aws.put("production/tenant-a", secret())
    assert bench.run() == {"reached": ["sandbox/tenant-a", "sandbox/tenant-b"]}
    assert {record["caller"] for record in bench.machine.audit} == {"alias/access-report"}
    assert bench.machine.imburse.tokens == {}, "each token was used"


def test_what_each_key_reaches_is_logged_and_no_token_is(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    bench.run()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "credential reaches" in line]
    assert [(line["credential"], line["accounts"], line["tenants"]) for line in lines] == [
        ("sandbox/tenant-a", [{"accountId": "account-1"}], [{"tenantId": "tenant-a"}])
    ]


def test_one_credentials_trouble_does_not_hide_the_others(bench: Bench) -> None:
    bench.machine.aws.put("sandbox/broken", "{}")
    bench.machine.aws.put("sandbox/revoked", secret())
    assert bench.run() == {
        "reached": ["sandbox/tenant-a"],
        "failed": {"sandbox/broken": "CredentialMisconfigured", "sandbox/revoked": "UpstreamRejected"},
    }


def test_a_refusal_by_imburse_is_reported_by_its_code(bench: Bench) -> None:
    bench.machine.imburse.script = [bench.machine.imburse.obey, lambda _: bench.machine.imburse.refuse(403)]
    assert bench.run()["failed"] == {"sandbox/tenant-a": "upstream_rejected"}


def test_what_there_is_no_time_for_is_named(bench: Bench) -> None:
    assert bench.run(seconds=10) == {"reached": [], "failed": {"sandbox/tenant-a": "not_asked"}}


def test_a_secret_that_is_named_unlike_a_credential_is_passed_over(bench: Bench) -> None:
    bench.listing.extra = ["imburse/odd", "imburse/a/b/c"]
    assert bench.run()["reached"] == ["sandbox/tenant-a"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"baseUrl": BASE_URL},
        {"headers": {}, "baseUrl": 1},
        {"headers": {}, "baseUrl": "https://evil.example"},
        [],
        "x",
    ],
)
def test_a_token_is_sent_to_no_host_that_is_not_on_the_list(bench: Bench, answer: Any) -> None:
    bench.lambda_.answer = answer
    assert list(bench.run()["failed"]) == ["sandbox/tenant-a"]
    assert bench.machine.imburse.requests == []


def test_the_handler_answers_with_the_report(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    module = handler_module("access_report")
    monkeypatch.setattr(module, "report", mock.Mock(run=lambda deadline: bench.run(deadline.remaining_seconds())))
    assert module.handler({}, Context(remaining_ms=300_000))["reached"] == ["sandbox/tenant-a"]
