"""The probe function as Lambda runs it: what it finds, what it says and counts, and what it must never do."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import pytest
import requests
from botocore.exceptions import EndpointConnectionError

from imburse_auth import CredentialId
from imburse_auth.hosts import Hosts
from imburse_auth.retry import Deadline
from tests.fakes import NOW, aws_error, secret
from tests.machine import ENVIRON, POLICY_DIR, Context, Machine, handler_module
from tests.probe_bench import FakeLambda, Listing, VersionedSecretsManager
from tests.stack import ROOT
from vending.access.rules import RuleBook
from vending.examine import Examiner, Finding
from vending.probing import LEAST_SECONDS, Probing
from vending.record.log import make_logger
from vending.record.metrics import VendingMetrics
from vending.stranger import Stranger
from vending.table import TableUnavailable

_numbers = itertools.count()
A = "sandbox/tenant-a"


class Bench:
    """The machine with its doors, and the probe beside it, on the same table, secrets and Imburse."""

    def __init__(self, policy: str | None = None) -> None:
        self.machine = Machine() if policy is None else Machine(policy=policy)
        self.aws = VersionedSecretsManager(self.machine.aws)
        self.listing = Listing(self.aws)
        self.lambda_ = FakeLambda(self.machine)
        self.order: list[list[CredentialId]] = []
        machine, clock = self.machine, self.machine.clock
        self.examiner = Examiner(
            secrets_manager=self.aws,  # type: ignore[arg-type]
            transport=machine.imburse.transport(),
            hosts=Hosts.parse(ENVIRON["IMBURSE_HOSTS"]),
            clock=clock,
            monotonic=clock,
            sleep=lambda _: None,
        )
        self.probing = Probing(
            examiner=self.examiner,
            stranger=Stranger(self.lambda_, ENVIRON["VEND_AS_NOBODY"]),  # type: ignore[arg-type]
            rules=RuleBook(machine.policy, (POLICY_DIR / "schema.cedarschema").read_text()),
            table=machine.table,
            secrets_manager=self.listing,  # type: ignore[arg-type]
            metrics=VendingMetrics("probe"),
            logger=make_logger(f"probe-{next(_numbers)}"),
            clock=clock,
            shuffle=lambda order: self.order.append(list(order)),
        )

    def keep(self, name: str, **changes: Any) -> dict[str, Any]:
        members = secret(**changes)
        self.machine.imburse.accept(members)
        self.machine.aws.put(name, members)
        return members

    def run(self, event: object = None, seconds: float = 300) -> dict[str, Any]:
        module = handler_module("probe")
        with mock.patch.object(module, "probing", self.probing):
            context = Context(remaining_ms=int(seconds * 1000))
            answer: dict[str, Any] = module.handler({} if event is None else event, context)
        return answer

    def one(self, name: str = A) -> dict[str, Any]:
        found: dict[str, Any] = self.run({"credential": name})["credentials"][name]
        return found


@pytest.fixture
def bench() -> Bench:
    """Not for tests that read the log: a logger writes to what standard output was when it was made."""
    return Bench()


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def metrics(out: str, credential: str | None = A) -> dict[str, float]:
    """The figures of one credential, or with None those of the run."""
    found: dict[str, float] = {}
    for line in (line for line in lines(out) if "_aws" in line and line["service"] == "probe"):
        if line.get("credential") != credential:
            continue
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        expected = [["service"]] if credential is None else [["service"], ["service", "credential"]]
        assert directive["Dimensions"] == expected
        found |= {metric["Name"]: line[metric["Name"]][0] for metric in directive["Metrics"]}
    return found


# What is found


def test_the_schedule_examines_every_credential_the_policy_and_a_stranger(bench: Bench) -> None:
    bench.keep("sandbox/tenant-b")
    answer = bench.run(json.loads((ROOT / "events/probe_all.json").read_text("utf-8")))
    assert {name: (found["state"], found["cause"]) for name, found in answer["credentials"].items()} == {
        A: ("healthy", "ok"),
        "sandbox/tenant-b": ("healthy", "ok"),
    }
    assert answer["stranger"] == {"refused": True, "answer": "NotAuthorized"}
    assert answer["policy"] == {"dangling": {"payouts-production": ["production/tenant-a"]}, "unreached": []}


def test_on_demand_one_credential_is_examined_and_nobody_else_is_bothered(bench: Bench) -> None:
    bench.keep("sandbox/tenant-b")
    answer = bench.run(json.loads((ROOT / "events/probe_one.json").read_text("utf-8")))
    assert list(answer) == ["credentials"]
    assert list(answer["credentials"]) == [A]
    assert bench.lambda_.invoked == []


@pytest.mark.parametrize("event", [[], {"credential": None}, {"credential": "../x"}, {"credential": A, "x": 1}])
def test_another_event_is_a_bug_and_raises(bench: Bench, event: Any) -> None:
    with pytest.raises(ValueError, match=r"^(event|credential)"):
        bench.run(event)


def test_its_token_is_spent_and_never_pooled_nor_handed_out(bench: Bench) -> None:
    answer = bench.run()
    assert bench.machine.imburse.tokens == {}
    assert set(bench.machine.table.calls) <= {"add", "delete"}, "all that its role may do"
    assert "accessToken" not in json.dumps(answer)


def test_the_secret_is_read_anew_by_each_run(bench: Bench) -> None:
    bench.run({"credential": A})
    other = secret()
    bench.machine.imburse.keys.clear()
    bench.machine.imburse.accept(other)
    bench.machine.aws.put(A, other)
    reads = len(bench.machine.aws.reads)
    assert bench.one()["state"] == "healthy"
    assert len(bench.machine.aws.reads) == reads + 1


def test_a_key_that_was_refused_a_moment_ago_is_asked_for_again(bench: Bench) -> None:
    bench.machine.imburse.script = [lambda _: bench.machine.imburse.refuse(401)]
    assert bench.one()["code"] == "upstream_rejected"
    assert bench.one()["state"] == "healthy"


def test_one_credentials_trouble_does_not_hide_the_others(bench: Bench) -> None:
    bench.machine.aws.put("sandbox/broken", "{}")
    bench.keep("sandbox/elsewhere", baseUrl="https://evil.example")
    bench.machine.aws.put("sandbox/revoked", secret())
    found = bench.run()["credentials"]
    assert {name: result.get("code") for name, result in found.items()} == {
        A: None,
        "sandbox/broken": "credential_misconfigured",
        "sandbox/elsewhere": "credential_misconfigured",
        "sandbox/revoked": "upstream_rejected",
    }


def test_a_bug_in_examining_one_is_told_as_one_and_the_others_are_examined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench()
    bench.keep("sandbox/tenant-b")
    examine = bench.examiner.examine

    def fail_for_b(credential: CredentialId, **options: Any) -> Any:
        if credential.name == "tenant-b":
            raise RuntimeError("a value that must not be logged")
        return examine(credential, **options)

    monkeypatch.setattr(bench.examiner, "examine", fail_for_b)
    found = bench.run()["credentials"]
    assert (found[A]["state"], found["sandbox/tenant-b"]["code"]) == ("healthy", "internal_error")
    out = capsys.readouterr().out
    assert "fail_for_b" in out
    assert "a value" not in out


def test_a_credential_that_does_not_exist_is_told_and_makes_no_metric(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench.one("sandbox/nothing")
    assert (found["state"], found["code"]) == ("unhealthy", "credential_not_found")
    assert metrics(capsys.readouterr().out, "sandbox/nothing") == {}
    assert bench.machine.table.items == {}


def test_a_listed_secret_without_a_value_counts_as_unhealthy_so_that_its_alarm_rings(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    get = bench.machine.aws.get_secret_value

    def nothing_in_a(**arguments: Any) -> dict[str, Any]:
        if arguments["SecretId"].endswith("/tenant-a"):
            raise aws_error("ResourceNotFoundException")
        return get(**arguments)

    bench.machine.aws.get_secret_value = nothing_in_a  # type: ignore[method-assign]
    assert [bench.run()["credentials"][A]["unhealthyInARow"] for _ in range(2)] == [1, 2]
    assert metrics(capsys.readouterr().out)["UnhealthyInARow"] == 2


# The clock and the age


@pytest.mark.parametrize(("shift", "skew"), [(0.0, 0.0), (30.0, 30.0), (-30.0, -29.0), (0.7, 0.0)])
def test_the_clocks_difference_is_what_the_date_proves(bench: Bench, shift: float, skew: float) -> None:
    clock = bench.machine.clock
    bench.machine.imburse.clock = lambda: clock() + shift
    assert bench.one()["clockSkewSeconds"] == skew


@pytest.mark.parametrize(("shift", "words"), [(1000.0, "1000 s ahead of ours"), (-1000.0, "999 s behind ours")])
def test_a_clock_that_vending_corrects_for_is_said_and_is_not_unhealthy(
    bench: Bench, capsys: pytest.CaptureFixture[str], shift: float, words: str
) -> None:
    clock = bench.machine.clock
    bench.machine.imburse.clock = lambda: clock() + shift
    found = bench.one()
    assert (found["state"], "code" in found) == ("healthy", False)
    assert words in found["cause"]
    assert metrics(capsys.readouterr().out)["ClockSkewSeconds"] == pytest.approx(1000, abs=1)


def test_a_revoked_key_is_not_blamed_on_a_clock_that_was_corrected_for(bench: Bench) -> None:
    clock = bench.machine.clock
    bench.machine.imburse.clock = lambda: clock() + 1000
    bench.machine.imburse.always = lambda _: bench.machine.imburse.refuse(401, "API_KEY_REVOKED")
    found = bench.one()
    assert found["cause"].startswith("the key is revoked")
    assert "1000 s ahead" in found["cause"]


def test_a_clock_beyond_correction_is_the_cause_and_not_the_key(bench: Bench) -> None:
    clock = bench.machine.clock
    bench.machine.imburse.clock = lambda: clock() + 100_000
    found = bench.one()
    assert (found["code"], found["clockSkewSeconds"]) == ("upstream_rejected", 100_000)
    assert found["cause"].startswith("Imburse's clock is 100000 s ahead of ours")


def test_a_keys_age_counts_from_its_secret_else_from_the_version(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.aws.created_at = datetime.fromtimestamp(NOW - 3 * 86_400, UTC)
    assert bench.one()["keyAgeDays"] == 3
    since = datetime.fromtimestamp(NOW - 100 * 86_400, UTC).isoformat()
    bench.machine.aws.put(A, bench.machine.members | {"createdAt": since})
    capsys.readouterr()
    assert bench.one()["keyAgeDays"] == 100
    assert metrics(capsys.readouterr().out)["KeyAgeDays"] == 100


def test_a_key_that_is_refused_has_an_age_all_the_same(bench: Bench) -> None:
    bench.aws.created_at = datetime.fromtimestamp(NOW - 86_400, UTC)
    bench.machine.imburse.keys.clear()
    assert bench.one()["keyAgeDays"] == 1


# The figures


def test_a_healthy_credential_in_figures(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run()
    out = capsys.readouterr().out
    said = metrics(out)
    assert {name: said[name] for name in ("CredentialHealthy", "UnhealthyInARow", "SecretsUnreadable")} == {
        "CredentialHealthy": 1,
        "UnhealthyInARow": 0,
        "SecretsUnreadable": 0,
    }
    assert {"ProbeLatency", "ExchangeLatency", "ClockSkewSeconds"} <= set(said)
    assert metrics(out, None) == {"StrangerRefused": 1, "DanglingRules": 2, "UnreachedCredentials": 0}


def test_how_often_in_a_row_is_counted_over_runs_and_forgotten_when_well(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    key = dict(bench.machine.imburse.keys)
    bench.machine.imburse.keys.clear()
    assert [bench.one()["unhealthyInARow"] for _ in range(3)] == [1, 2, 3]
    said = metrics(capsys.readouterr().out)
    assert (said["CredentialHealthy"], said["UnhealthyInARow"]) == (0, 3)
    bench.machine.imburse.keys.update(key)
    assert bench.one()["unhealthyInARow"] == 0
    bench.machine.imburse.keys.clear()
    assert bench.one()["unhealthyInARow"] == 1


def test_a_table_that_is_down_counts_one_and_hides_nothing(bench: Bench) -> None:
    bench.machine.table.failure = TableUnavailable("slow")
    assert bench.one() | {"latencyMs": 0.0} == {
        "state": "healthy", "cause": "ok", "latencyMs": 0.0, "clockSkewSeconds": 0.0, "unhealthyInARow": 0,
    }  # fmt: skip
    bench.machine.imburse.keys.clear()
    assert [bench.one()["unhealthyInARow"] for _ in range(2)] == [1, 1]


def test_an_unreadable_secret_is_counted_as_that_too(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.machine.aws.failure = aws_error("AccessDeniedException")
    assert bench.one()["code"] == "secrets_unavailable"
    said = metrics(capsys.readouterr().out)
    assert (said["SecretsUnreadable"], said["CredentialHealthy"]) == (1, 0)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (aws_error("AccessDeniedException"), "AccessDeniedException"),
        (EndpointConnectionError(endpoint_url="x"), "EndpointConnectionError"),
    ],
)
def test_secrets_that_cannot_be_listed_are_counted_and_the_stranger_is_asked_for_all_that(
    bench: Bench, capsys: pytest.CaptureFixture[str], failure: Exception, reason: str
) -> None:
    bench.listing.failure = failure
    assert bench.run() == {"unlisted": reason, "stranger": {"refused": True, "answer": "NotAuthorized"}}
    assert metrics(capsys.readouterr().out, None) == {"SecretsUnreadable": 1, "StrangerRefused": 1}


# The time


def test_what_there_is_no_time_for_is_not_asked_and_is_not_unhealthy(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench.run(seconds=15)["credentials"][A]
    assert found["state"] == "not asked"
    assert "code" not in found
    assert bench.machine.aws.reads == []
    assert metrics(capsys.readouterr().out) == {}
    assert bench.machine.table.items == {}


def test_the_time_is_shared_and_nobody_gets_too_little_to_be_judged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    for number in range(40):
        bench.keep(f"sandbox/t{number}")

    def note(credential: CredentialId, *, deadline: Deadline, correlation_id: str) -> Finding:
        shares.append(deadline.remaining_seconds())
        return Finding("healthy", "ok")

    monkeypatch.setattr(bench.examiner, "examine", note)
    bench.run(seconds=60)
    assert len(shares) == 41
    assert min(shares) > LEAST_SECONDS - 0.5
    assert max(shares) <= 20


def test_credentials_that_hang_are_asked_side_by_side(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=5)
    for number in range(3):
        bench.keep(f"sandbox/t{number}")
    examine = bench.examiner.examine

    def wait_for_all(credential: CredentialId, **options: Any) -> Any:
        together.wait()
        return examine(credential, **options)

    monkeypatch.setattr(bench.examiner, "examine", wait_for_all)
    assert {found["state"] for found in bench.run()["credentials"].values()} == {"healthy"}


def test_the_order_is_drawn_by_lot(bench: Bench) -> None:
    bench.keep("sandbox/tenant-b")
    bench.run()
    assert list(map(str, bench.order[0])) == [A, "sandbox/tenant-b"]


# The stranger


def test_the_stranger_asks_through_live_for_one_token_of_a_credential_that_exists(bench: Bench) -> None:
    bench.run()
    assert bench.lambda_.invoked == [(ENVIRON["VEND_AS_NOBODY"], {"credential": A, "count": 1})]
    assert bench.machine.audit[-1]["caller"] == "alias/live"
    assert bench.machine.audit[-1]["outcome"] == "refused"


def test_without_any_credential_the_stranger_is_asked_all_the_same(bench: Bench) -> None:
    bench.machine.aws.secrets.clear()
    assert bench.run()["stranger"]["refused"] is True


def test_a_stranger_who_is_served_raises_the_alarm_and_the_token_is_nowhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench = Bench('permit (principal, action == Action::"vend", resource);')
    answer = bench.run()
    assert answer["stranger"] == {"refused": False, "answer": "served"}
    out = capsys.readouterr().out
    assert metrics(out, None)["StrangerRefused"] == 0
    (line,) = (line for line in lines(out) if line.get("message") == "stranger not refused")
    assert line["level"] == "CRITICAL"
    (token,) = bench.machine.imburse.tokens
    assert token not in json.dumps(answer) + out


def answered(document: object) -> Callable[[], tuple[str | None, object]]:
    return lambda: ("Unhandled", document)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (answered({"errorType": "NotAuthorized"}), True),
        (answered({"errorType": "UpstreamRejected"}), False),
        (answered({"errorType": "SecretsUnavailable"}), False),
        (answered({"errorType": "AuditUnavailable"}), False),
        (answered({"errorType": "InternalError"}), False),
        (lambda: (None, None), False),
        (lambda: (None, {"errorType": "NotAuthorized"}), False),
        (answered({"errorType": "Runtime.ExitError"}), None),
        (answered({"errorMessage": "Task timed out after 30.00 seconds"}), None),
        (answered([]), None),
        (lambda: aws_error("TooManyRequestsException"), None),
        (lambda: EndpointConnectionError(endpoint_url="x"), None),
    ],
)
def test_every_answer_but_the_refusal_is_an_alarm_and_no_answer_is_no_verdict(
    bench: Bench, capsys: pytest.CaptureFixture[str], answer: Any, refused: bool | None
) -> None:
    bench.lambda_.answer = answer
    assert bench.run()["stranger"]["refused"] is refused
    figures = metrics(capsys.readouterr().out, None)
    assert figures.get("StrangerRefused") == (None if refused is None else int(refused))


# The policy


def test_policy_and_credentials_that_do_not_fit_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    role = 'principal == Caller::"arn:aws:iam::123456789012:role/orders", action == Action::"vend"'
    bench = Bench(f'@id("gone") permit ({role}, resource == Credential::"sandbox/gone");')
    answer = bench.run()
    assert answer["policy"] == {"dangling": {"gone": ["sandbox/gone"]}, "unreached": [A]}
    out = capsys.readouterr().out
    assert metrics(out, None) | {"StrangerRefused": 1} == {
        "StrangerRefused": 1, "DanglingRules": 1, "UnreachedCredentials": 1,
    }  # fmt: skip
    said = [line for line in lines(out) if line.get("level") == "WARNING"]
    assert {"gone", A} <= {value for line in said for value in (line.get("rule"), *line.get("credentials", []))}


# Secrets


@pytest.mark.parametrize(
    "trouble",
    [
        None,
        lambda imburse, request: imburse.refuse(401, str(request.headers["Authorization"])),
        lambda imburse, request: imburse.refuse(403, str(request.headers["Authorization"])),
        lambda imburse, request: imburse.answer({"accessToken": request.headers["Authorization"]}),
        lambda imburse, request: requests.ConnectionError(request.headers["Authorization"]),
    ],
)
def test_no_secret_is_in_any_output(capsys: pytest.CaptureFixture[str], trouble: Any) -> None:
    bench = Bench()
    imburse = bench.machine.imburse
    given: list[str] = []
    obey = imburse.obey

    def watched(request: requests.PreparedRequest) -> Any:
        result = obey(request) if trouble is None else trouble(imburse, request)
        given.extend(imburse.tokens)
        return result

    imburse.always = watched
    said = json.dumps(bench.run()) + "".join(capsys.readouterr())
    assert '"message":"probe"' in said
    said += json.dumps(list(bench.machine.table.items.values()))
    signatures = [str(r.headers["Authorization"]).rsplit(":", 1)[-1] for r in imburse.requests]
    for value in (bench.machine.members["privateKey"], *signatures, *given):
        assert value.removeprefix("Bearer ") not in said
