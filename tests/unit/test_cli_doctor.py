"""`imburse-vending doctor`: the first thing that is wrong, what to do about it, and nothing that only follows from it."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from typing import Any
from unittest import mock

import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError

from imburse_auth.client import VendingFailed
from imburse_vending import doctor, doctor_checks, door, imburse_call
from imburse_vending.common import CommandError, ExitCode, Place
from imburse_vending.doctor_checks import Patient
from imburse_vending.doctor_network import date_of, reach
from imburse_vending.doctor_walk import Check, Result, State, examine
from imburse_vending.imburse_call import Reply
from tests.cli_run import Done, FakeSource, run, vended
from tests.fakes import Clock

ENVIRON = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "CANARY-aws", "AWS_DEFAULT_REGION": "eu-west-1"}
API = "https://vending.test/sandbox"
ARN = "arn:aws:sts::123456789012:assumed-role/orders/me"
LET_IN = VendingFailed("invalid_request", "count: must be a whole number", status=400)


@dataclass
class World:
    """What doctor meets: STS's answer, the network's, the machine's and Imburse's."""

    clock: Clock = field(default_factory=Clock)
    sts_ahead_seconds: float = 0
    sts_error: Exception | None = None
    network: Result = field(default_factory=lambda: Result(State.OK, "DNS, TCP, TLS"))
    source: FakeSource = field(default_factory=lambda: FakeSource([LET_IN, [vended()]]))
    reply: Reply = field(default_factory=lambda: Reply(200, "OK", {}, b"{}", 0.1))
    environ: dict[str, str] = field(default_factory=lambda: {**ENVIRON, "VENDING_API": API})

    def get_caller_identity(self) -> dict[str, Any]:
        if self.sts_error is not None:
            raise self.sts_error
        return {"Arn": ARN, "ResponseMetadata": {"HTTPHeaders": {"date": self.date()}}}

    def date(self) -> str:
        return formatdate(self.clock() + self.sts_ahead_seconds, usegmt=True)

    def client(self, _place: Place, _service: str, **_more: object) -> Any:
        return self

    def doctor(self, *arguments: str) -> Done:
        with (
            mock.patch.dict("os.environ", self.environ),
            mock.patch.object(Place, "client", lambda place, service, **more: self.client(place, service, **more)),
            mock.patch.object(doctor, "Patient", partial(Patient, clock=self.clock)),
            mock.patch.object(doctor_checks, "reach", return_value=self.network),
            mock.patch.object(doctor_checks, "date_of", return_value=self.date()),
            mock.patch.object(door, "source_of", return_value=self.source),
            mock.patch.object(imburse_call, "send", return_value=self.reply),
        ):
            return run("doctor", *arguments)

    def states(self, *arguments: str) -> tuple[int, dict[str, str]]:
        done = self.doctor(*arguments, "--json")
        document = json.loads(done.out)
        assert document["healthy"] == (done.code == 0)
        assert "CANARY" not in done.text
        return done.code, {one["check"]: one["state"] for one in document["checks"]}


def refused(code: str, *, date: str | None = None) -> ClientError:
    headers = {"date": date} if date else {}
    return ClientError(
        {"Error": {"Code": code, "Message": "CANARY"}, "ResponseMetadata": {"HTTPHeaders": headers}},  # type: ignore[typeddict-item]
        "GetCallerIdentity",
    )


@pytest.fixture
def world() -> World:
    return World()


def test_all_is_well_the_whole_way_and_a_token_is_spent_only_if_asked(world: World) -> None:
    code, states = world.states("sandbox/tenant-a", "--vend")
    assert (code, set(states.values())) == (0, {"ok"})
    assert world.source.asked == [("sandbox/tenant-a", 0, 300), ("sandbox/tenant-a", 1, 300)]


def test_without_vend_it_asks_for_no_token(world: World) -> None:
    code, states = world.states("sandbox/tenant-a")
    assert code == 0
    assert (states["policy"], states["Imburse"]) == ("skipped", "skipped")
    assert world.source.asked == [("sandbox/tenant-a", 0, 300)]


def test_without_credentials_only_that_and_what_is_independent_fails(world: World) -> None:
    world.environ = {"VENDING_API": API, "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true"}
    with mock.patch.dict("os.environ"):
        code, states = world.states()
    failed = [name for name, state in states.items() if state == "failed"]
    assert (code, failed) == (2, ["AWS credentials"])
    assert states["way in"] == "skipped"


def test_expired_credentials_are_named_and_nothing_that_follows_is(world: World) -> None:
    world.sts_error = refused("ExpiredToken", date=world.date())
    done = world.doctor()
    assert done.code == 3
    assert "they have expired" in done.out
    assert done.out.count("failed") == 1
    assert "CANARY" not in done.text


def test_a_wrong_clock_is_found_by_the_refusal_it_caused(world: World) -> None:
    world.sts_ahead_seconds = 400
    world.sts_error = refused("SignatureDoesNotMatch", date=world.date())
    done = world.doctor()
    assert "6 min 40 s behind STS" in done.out
    assert "NTP" in done.out


@pytest.mark.parametrize(("ahead", "state"), [(-301, "failed"), (301, "failed"), (-60, "ok"), (0, "ok")])
def test_a_clock_may_be_off_by_five_minutes(world: World, ahead: float, state: str) -> None:
    world.sts_ahead_seconds = ahead
    assert world.states()[1]["clock"] == state


def test_without_sts_vending_may_still_work_and_the_api_tells_the_time(world: World) -> None:
    world.sts_error = EndpointConnectionError(endpoint_url="https://sts.test")
    code, states = world.states()
    assert (code, states["AWS identity"], states["clock"], states["way in"]) == (0, "skipped", "ok", "ok")
    world.source = FakeSource([LET_IN])
    world.sts_ahead_seconds = 4000
    assert world.states()[1]["clock"] == "failed"


def test_what_needs_the_network_is_not_tried_without_it(world: World) -> None:
    world.network = Result(State.FAILED, "no", "look", ExitCode.TRY_LATER)
    code, states = world.states("sandbox/tenant-a", "--vend")
    assert (code, states["way in"], states["policy"]) == (4, "skipped", "skipped")
    assert world.source.asked == []


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (VendingFailed("refused_by_aws", "API Gateway, AccessDeniedException: IAM", status=403), 3, "ApiCallerPolicy"),
        (VendingFailed("refused_by_aws", "API Gateway, MissingAuthenticationTokenException: no"), 3, "outputs: ApiUrl"),
        (VendingFailed("refused_by_aws", "Lambda, ResourceNotFoundException: no such alias"), 3, "outputs: ApiUrl"),
        (VendingFailed("refused_by_aws", "API Gateway, InvalidSignatureException: wrong"), 3, "--region"),
        (VendingFailed("refused_by_aws", "API Gateway, UnrecognizedClientException: no"), 3, "of the account"),
        (VendingFailed("refused_by_aws", "Lambda, ExpiredTokenException: see"), 3, "sso login"),
        (VendingFailed("refused_by_aws", "Lambda, KMSDisabledException: see"), 3, "AWS documentation"),
        (VendingFailed("not_authorized", "no", status=403), 3, "nobody vouches"),
        (VendingFailed("unexpected_answer", "the answer is not the vending machine's", status=404), 1, "ApiUrl"),
        (VendingFailed("unreachable", "no answer", retryable=True), 4, "try again"),
    ],
)
def test_the_gateways_no_is_told_from_the_machines(world: World, failure: VendingFailed, code: int, says: str) -> None:
    world.source = FakeSource([failure])
    done = world.doctor("sandbox/tenant-a", "--vend")
    assert (done.code, says in done.out) == (code, True)


def test_the_policys_no_names_the_caller_that_a_rule_would_have_to_name(world: World) -> None:
    world.source = FakeSource([LET_IN, VendingFailed("not_authorized", "no", status=403)])
    done = world.doctor("sandbox/tenant-a", "--vend")
    assert done.code == 3
    assert 'Caller::"arn:aws:iam::123456789012:role/orders"' in done.out


def test_imburse_may_refuse_the_token(world: World) -> None:
    world.reply = Reply(401, "Unauthorized", {}, b"CANARY", 0.1)
    done = world.doctor("sandbox/tenant-a", "--vend")
    assert (done.code, "answers 401" in done.out, "CANARY" in done.text) == (1, True, False)


def test_a_check_is_skipped_with_all_that_needs_what_failed_and_a_skipped_one_blocks_nothing() -> None:
    def fail() -> Result:
        raise CommandError("no", next_step="do this")

    def never() -> Result:
        raise AssertionError

    checks = (
        Check("a", lambda: Result(State.SKIPPED, "not wanted")),
        Check("b", lambda: Result(State.OK, "well"), ("a",)),
        Check("c", fail, ("b",)),
        Check("d", never, ("c",)),
        Check("e", never, ("d",)),
    )
    results = {check.name: result for check, result in examine(checks)}
    assert [result.state.value for result in results.values()] == ["skipped", "ok", "failed", "skipped", "skipped"]
    assert results["c"].fix == "do this"
    assert results["e"].says == "needs: d"


@pytest.mark.parametrize(
    ("patched", "raised", "says"),
    [
        ("getaddrinfo", socket.gaierror(), "DNS has no address for vending.test"),
        ("create_connection", TimeoutError(), "vending.test:443 takes no connection"),
        ("create_connection", ConnectionRefusedError(), "takes no connection (ConnectionRefusedError)"),
        ("create_connection", ssl.SSLCertVerificationError(), "not to be trusted"),
        ("create_connection", ssl.SSLError(1, "x"), "TLS with vending.test fails"),
    ],
)
def test_the_network_says_which_step_failed(patched: str, raised: Exception, says: str) -> None:
    with mock.patch.object(socket, "getaddrinfo"), mock.patch.object(socket, patched, side_effect=raised):
        result = reach(API)
    assert (result.state, says in result.says) == (State.FAILED, True)
    assert result.fix


def test_a_date_that_cannot_be_had_is_none() -> None:
    with mock.patch.object(requests.Session, "get", side_effect=requests.ConnectionError):
        assert date_of(API) is None
