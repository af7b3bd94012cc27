"""Attacks on the proof of who is calling, and an STS that fails, at the direct door.

Each comes through `settlement-job`, an alias that may vend: whoever is refused here was not taken for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from imburse_auth.caller_proof import BODY, CallerProof, request_headers
from tests.fake_sts import ACCOUNT, STS_URL, Principal
from tests.machine import Context, Machine
from vending.record.redaction import redact

FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend"
SINGLE = {"credential": "sandbox/tenant-a"}

Proof = dict[str, Any]


@pytest.fixture
def machine(capfd: pytest.CaptureFixture[str]) -> Iterator[Machine]:
    """A machine of which nothing that was refused is left: no token, no word of the proof in log, audit record or answer."""
    machine = Machine()
    yield machine
    assert not machine.imburse.requests
    assert all(record["outcome"] != "vended" and "caller" not in record for record in machine.audit)
    said = json.dumps(machine.audit) + "".join(capfd.readouterr())
    for principal in machine.sts.principals.values():
        for secret in (principal.access_key_id, principal.secret_access_key, principal.session_token):
            assert secret is None or secret not in said
    for request in machine.sts.requests:
        assert str(request.headers["Authorization"])[-64:] not in said


def prove(machine: Machine, who: Principal | None = None, *, function: str = FUNCTION, seconds_ago: float = 0) -> Proof:
    who = who or machine.sts.role("orders")
    signed_at = machine.clock() - seconds_ago
    return CallerProof(function, session=who.session(), sts_url=STS_URL, clock=lambda: signed_at)()


def refused(machine: Machine, proof: object, *, asked: int) -> str:
    """The code of the refusal, after `asked` requests to STS."""
    refusal = machine.invoke_refusal(SINGLE | {"proof": proof})
    assert len(machine.sts.requests) == asked
    assert not isinstance(proof, dict) or all(
        str(value) not in json.dumps(refusal.document) for value in proof.values() if len(str(value)) > 8
    )
    return refusal.code


# What is refused by its form, and costs nothing


@pytest.mark.parametrize(
    "proof",
    [
        None, {}, [], "", True, 7, "AWS4-HMAC-SHA256 Credential=...", [["region", "eu-west-1"]],
        f"{STS_URL}/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0",
    ],
)  # fmt: skip
def test_what_is_no_proof_is_an_invalid_request_and_not_the_alias(machine: Machine, proof: object) -> None:
    assert refused(machine, proof, asked=0) == "invalid_request"


@pytest.mark.parametrize(
    "member",
    [
        "url", "host", "Host", "endpoint", "method", "body", "headers", "query", "authorization", "Authorization",
        "signedHeaders", "service", "scope", "audience", "X-Imburse-Vending-Audience", "Region", "SIGNATURE", "sessiontoken",
        "X-Amz-Security-Token", "arn", "account", "", "region\r\n", "\u017fignature",
    ],
)  # fmt: skip
def test_a_proof_can_name_neither_host_method_header_body_nor_audience(machine: Machine, member: str) -> None:
    for value in ("https://sts.evil.test", {"Host": "sts.evil.test"}, FUNCTION, None):
        assert refused(machine, prove(machine) | {member: value}, asked=0) == "invalid_request"


@pytest.mark.parametrize("how", ["no proof", "forged", "old"])
def test_who_is_refused_with_a_proof_leaves_the_alias_that_iam_let_them_invoke(machine: Machine, how: str) -> None:
    """Else nobody could tell who tries: what the proof says is not to be believed."""
    proof: object = {"no proof": {}, "forged": prove(machine) | {"signature": "0" * 64}}.get(how)
    machine.invoke_refusal(SINGLE | {"proof": prove(machine, seconds_ago=600) if proof is None else proof})
    assert machine.audit[-1]["through"] == "alias/settlement-job"


@pytest.mark.parametrize("member", ["region", "accessKeyId", "date", "nonce", "signature"])
def test_a_proof_without_one_of_its_members_is_none(machine: Machine, member: str) -> None:
    proof = prove(machine)
    del proof[member]
    assert refused(machine, proof, asked=0) == "invalid_request"


@pytest.mark.parametrize(
    "region",
    [
        "EU-WEST-1", "eu-west-1.", "eu-west-1.evil.test", "eu-west-1@evil.test", "evil.test/eu-west-1", "eu-west-1:8443",
        "eu-west-1#", "eu-west-1?", "eu-west-1/..", "eu-west-1\\", "eu-west-1%2e", "eu-w\u0435st-1", "eu\u2010west\u20101",
        "eu-west-\uff11", " eu-west-1", "eu-west-1\r\nHost: evil.test", "eu-west-1\n", "eu-west-1\0", "", "e" * 33,
        f"{STS_URL}", ["eu-west-1"], {"eu-west-1": 1}, None, 1,
    ],
)  # fmt: skip
def test_a_region_is_no_way_to_another_host(machine: Machine, region: object) -> None:
    assert refused(machine, prove(machine) | {"region": region}, asked=0) == "invalid_request"


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", "cn-north-1", "aws-global", "127-0-0-1", "evil"])
def test_a_region_that_is_not_on_the_list_is_not_asked(machine: Machine, region: str) -> None:
    assert refused(machine, prove(machine) | {"region": region}, asked=0) == "not_authorized"


@pytest.mark.parametrize("member", ["accessKeyId", "date", "nonce", "signature", "sessionToken"])
def test_no_member_can_end_a_header_or_begin_another(machine: Machine, member: str) -> None:
    proof = prove(machine)
    right = proof[member]
    for smuggled in "\r\nX-A: x", "\n", "\r", "\0", " ", "\t", "\x85", "\u2028", "\u00e9", "\uff21", "\U0001d7ce":
        for text in (right + smuggled, smuggled + right, right[:8] + smuggled + right[8:]):
            assert refused(machine, proof | {member: text}, asked=0) == "invalid_request"


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("accessKeyId", "ASIAX/20210226/eu-west-1/sts/aws4_request"),
        ("accessKeyId", "ASIAX, SignedHeaders=host"),
        ("accessKeyId", "A" * 129),
        ("signature", "0" * 63), ("signature", "0" * 65), ("signature", "A" * 64), ("signature", "0" * 63 + "\u0660"),
        ("signature", "0" * 64 + ", SignedHeaders=host"),
        ("nonce", "short"), ("nonce", "n" * 65), ("nonce", "a" * 16 + ","),
        ("sessionToken", ""), ("sessionToken", "x" * 8193), ("sessionToken", None),
        ("date", "2021-02-26T14:33:20Z"), ("date", "20210226"), ("date", "\u0662" * 8 + "T143320Z"), ("date", 1614350000),
    ],
)  # fmt: skip
def test_a_member_that_is_not_as_it_must_be_is_named_and_not_shown(machine: Machine, member: str, text: object) -> None:
    refusal = machine.invoke_refusal(SINGLE | {"proof": prove(machine) | {member: text}})
    assert refusal.code == "invalid_request"
    assert refusal.document["detail"].startswith(f"proof.{member}: must be ")
    assert not machine.sts.requests


@pytest.mark.parametrize("seconds_ago", [301, 3600, -301, -86_400])
def test_a_proof_from_another_time_is_refused_though_sts_would_take_it(machine: Machine, seconds_ago: int) -> None:
    assert refused(machine, prove(machine, seconds_ago=seconds_ago), asked=0) == "not_authorized"


@pytest.mark.parametrize("date", ["20210230T000000Z", "00000226T143320Z", "20210226T246060Z", "99991332T000000Z"])
def test_a_date_that_is_none_is_refused(machine: Machine, date: str) -> None:
    assert refused(machine, prove(machine) | {"date": date}, asked=0) == "not_authorized"


# What only STS can tell: the signature is not one over what we send


ALTERED: dict[str, Callable[[Machine, Proof], Proof]] = {
    "another nonce": lambda _, proof: proof | {"nonce": "n" * 32},
    "another second": lambda _, proof: proof | {"date": proof["date"][:-3] + "21Z"},
    "another signature": lambda _, proof: proof | {"signature": proof["signature"][::-1]},
    "another's key": lambda machine, proof: proof | {"accessKeyId": machine.sts.role("operators").access_key_id},
    "nobody's key": lambda _, proof: proof | {"accessKeyId": "ASIANOBODY"},
    "no token": lambda _, proof: {name: value for name, value in proof.items() if name != "sessionToken"},
    "another's token": lambda machine, proof: proof | {"sessionToken": machine.sts.role("operators").session_token},
    "for another function": lambda machine, _: prove(machine, function=f"{FUNCTION}2"),
    "for our function elsewhere": lambda machine, _: (
        prove(machine, function=FUNCTION.replace("eu-west-1", "us-east-1")) | {"region": "eu-west-1"}
    ),
    "for another account's": lambda machine, _: prove(machine, function=FUNCTION.replace(ACCOUNT, "210987654321")),
    "a token that was not signed": lambda machine, _: (
        prove(machine, machine.sts.principal(f"arn:aws:iam::{ACCOUNT}:user/ann", session=False)) | {"sessionToken": "x" * 99}
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", ALTERED)
def test_a_proof_that_was_altered_or_meant_for_another_is_refused(machine: Machine, how: str) -> None:
    assert refused(machine, ALTERED[how](machine, prove(machine)), asked=1) == "not_authorized"


def signed_otherwise(
    machine: Machine,
    *,
    method: str = "POST",
    url: str = f"{STS_URL}/",
    body: bytes = BODY,
    service: str = "sts",
    region: str = "eu-west-1",
    leave_out: str = "",
    **more: str,
) -> Proof:
    """A proof by somebody who signed another request than ours: right in all but one thing."""
    who, date, nonce = machine.sts.role("orders"), "20210226T143320Z", "n" * 32
    headers = request_headers(FUNCTION, date=date, nonce=nonce, session_token=who.session_token)
    headers = {name: value for name, value in headers.items() if name != leave_out}
    request = AWSRequest(method, url, headers=headers, data=body)
    for name, value in more.items():
        request.headers.add_header(name.replace("_", "-"), value)
    request.context["timestamp"] = date
    signer = SigV4Auth(Credentials(who.access_key_id, who.secret_access_key), service, region)
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return {
        "region": "eu-west-1",
        "accessKeyId": who.access_key_id,
        "date": date,
        "nonce": nonce,
        "signature": signature,
        "sessionToken": who.session_token,
    }


OTHERWISE: dict[str, dict[str, Any]] = {
    "another body": {"body": b"Action=AssumeRole&Version=2011-06-15"},
    "a longer body": {"body": BODY + b"&x=1"},
    "no body": {"method": "GET", "url": f"{STS_URL}/?{BODY.decode()}", "body": b""},
    "another method": {"method": "PUT"},
    "a query string": {"url": f"{STS_URL}/?Action=GetSessionToken"},
    "another path": {"url": f"{STS_URL}/x"},
    "another host": {"url": "https://sts.evil.test/"},
    "another port": {"url": f"{STS_URL}:8443/"},
    "another service": {"service": "iam"},
    "another region": {"region": "us-east-1"},
    "no audience": {"leave_out": "X-Imburse-Vending-Audience"},
    "two audiences": {"X_Imburse_Vending_Audience": f"{FUNCTION}2"},
    "the audience twice": {"X_Imburse_Vending_Audience": FUNCTION},
    "no nonce": {"leave_out": "X-Imburse-Vending-Nonce"},
    "no date": {"leave_out": "X-Amz-Date"},
    "no session token": {"leave_out": "X-Amz-Security-Token"},
    "a header more": {"X_Amz_Target": "x"},
}


@pytest.mark.parametrize("how", OTHERWISE)
def test_a_signature_over_another_request_is_of_no_use(machine: Machine, how: str) -> None:
    assert refused(machine, signed_otherwise(machine, **OTHERWISE[how]), asked=1) == "not_authorized"


def test_the_forger_of_these_tests_signs_what_is_good_if_nothing_is_wrong() -> None:
    machine = Machine()
    machine.clock.now = 1_614_350_000.0
    assert machine.invoke(SINGLE | {"proof": signed_otherwise(machine)})["accessToken"]


# An STS that fails, or that somebody stands in for


def _answers(*answer: Any) -> Callable[[Machine], Any]:
    return lambda machine: machine.sts.answer(*answer)


def _raises(error: Exception) -> Callable[[Machine], Any]:
    return lambda _: error


IDENTITY = {"Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/s", "Account": ACCOUNT, "UserId": "AROA:s"}
GOOD = {"GetCallerIdentityResponse": {"GetCallerIdentityResult": IDENTITY}}
XML = f"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>{IDENTITY['Arn']}</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"
TROUBLES: dict[str, tuple[Callable[[Machine], Any], int]] = {
    "refused connection": (_raises(requests.ConnectionError("secret")), 2),
    "connect time-out": (_raises(requests.ConnectTimeout("secret")), 2),
    "read time-out": (_raises(requests.ReadTimeout("secret")), 2),
    "bad certificate": (_raises(requests.exceptions.SSLError("secret")), 2),
    "429": (_answers(429, GOOD), 2),
    "400 throttling": (lambda machine: machine.sts.refuse(400, "Throttling"), 2),
    "500": (_answers(500, GOOD), 2),
    "503 with the right answer": (_answers(503, GOOD), 2),
    "503, come back in an hour": (_answers(503, b"", {"Retry-After": "3600"}), 1),
    "redirect": (_answers(302, GOOD, {"Location": "https://sts.evil.test/"}), 1),
    "307": (_answers(307, GOOD, {"Location": f"{STS_URL}/elsewhere"}), 1),
    "204": (_answers(204, b""), 1),
    "206": (_answers(206, GOOD), 1),
    "404": (_answers(404, GOOD), 1),
    "407": (_answers(407, GOOD), 1),
    "XML": (_answers(200, XML.encode(), {"Content-Type": "text/xml"}), 1),
    "garbage": (_answers(200, b"\xff\xfe<html>"), 1),
    "nothing": (_answers(200, b""), 1),
    "too much": (_answers(200, json.dumps(GOOD).encode() + b" " * 65_536), 1),
    "deep": (_answers(200, b"[" * 60_000), 1),
    "a list": (_answers(200, [GOOD]), 1),
    "null": (_answers(200, b"null"), 1),
    "text": (_answers(200, '"GetCallerIdentityResponse"'), 1),
    "an error with 200": (_answers(200, {"Error": {"Code": "AccessDenied"}}), 1),
    "another action's answer": (_answers(200, {"GetSessionTokenResponse": GOOD}), 1),
    "the identity at the top": (_answers(200, IDENTITY), 1),
    "a list of identities": (_answers(200, {"GetCallerIdentityResponse": {"GetCallerIdentityResult": [IDENTITY]}}), 1),
    "no ARN": (lambda machine: machine.sts.identity(None), 1),
    "an ARN that is none": (lambda machine: machine.sts.identity(["arn"]), 1),
    "no account": (lambda machine: machine.sts.identity(IDENTITY["Arn"], None), 1),
    "an account that is a number": (lambda machine: machine.sts.identity(IDENTITY["Arn"], int(ACCOUNT)), 1),
    "another account": (lambda machine: machine.sts.identity(IDENTITY["Arn"], "210987654321"), 1),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_sts_that_cannot_say_who_it_is_leaves_the_caller_unproven(machine: Machine, trouble: str) -> None:
    behaviour, asked = TROUBLES[trouble]
    machine.sts.always = lambda _: behaviour(machine)
    started = machine.clock()
    assert refused(machine, prove(machine), asked=asked) == "proof_unavailable"
    assert machine.clock() - started < 1  # backoff
    assert machine.audit[0]["outcome"] == "failed"


@pytest.mark.parametrize(
    "arn",
    [
        "", "orders", f"{IDENTITY['Arn']}\n", f"arn:aws:sts::{ACCOUNT}:assumed-role/orders", f"arn:aws:sts::{ACCOUNT}:assumed-role/a/b/c",
        f"arn:aws:iam::{ACCOUNT}:group/orders", "alias/settlement-job", f"arn:aws:iam::{ACCOUNT}:role/ord\u0435rs", "*",
    ],
)  # fmt: skip
def test_an_arn_that_is_no_principals_is_nobody(machine: Machine, arn: str) -> None:
    machine.sts.always = lambda _: machine.sts.identity(arn)
    assert refused(machine, prove(machine), asked=1) == "not_authorized"


@pytest.mark.parametrize(
    ("status", "code"), [(403, "ExpiredToken"), (403, "InvalidClientTokenId"), (400, "RequestExpired"), (401, "X" * 99)]
)
def test_who_is_refused_by_sts_is_refused_here_and_not_told_why(machine: Machine, status: int, code: str) -> None:
    machine.sts.always = lambda _: machine.sts.refuse(status, code)
    document = machine.invoke_refusal(SINGLE | {"proof": prove(machine)}).document
    without = {name: value for name, value in document.items() if name != "requestId"}
    other = Machine().invoke_refusal({"credential": "sandbox/other"}).document
    assert without == {name: value for name, value in other.items() if name != "requestId"}
    assert len(machine.sts.requests) == 1


def test_no_try_takes_longer_than_two_seconds_nor_than_there_is_time(machine: Machine) -> None:
    machine.sts.always = lambda _: requests.ReadTimeout()
    machine.invoke_refusal(SINGLE | {"proof": prove(machine)})
    assert all(0 < seconds <= 2 for seconds in machine.sts.timeouts)
    machine.sts.timeouts.clear()
    machine.invoke_refusal(SINGLE | {"proof": prove(machine)}, Context(remaining_ms=1_500))
    assert all(0 < seconds <= 0.5 for seconds in machine.sts.timeouts)
    machine.sts.requests.clear()
    refusal = machine.invoke_refusal(SINGLE | {"proof": prove(machine)}, Context(remaining_ms=900))
    assert (refusal.code, machine.sts.requests) == ("proof_unavailable", [])


def test_one_failure_of_sts_is_got_over() -> None:
    machine = Machine()
    for trouble in (machine.sts.answer(500, b""), machine.sts.refuse(400, "Throttling")):
        machine.sts.script = [lambda _, trouble=trouble: trouble]  # type: ignore[misc]
        assert machine.invoke(SINGLE | {"proof": prove(machine)})["accessToken"]


# What a log could hold of it


@pytest.mark.parametrize("form", ["{}", "{!r}", "json", "json in json"])
def test_the_last_net_takes_a_proof_out_of_a_log_line(form: str) -> None:
    proof = prove(Machine())
    headers = {"X-Amz-Security-Token": proof["sessionToken"], "Authorization": f"..., Signature={proof['signature']}"}
    for held in (proof, headers):
        text = json.dumps(held)
        line = {"json": text, "json in json": json.dumps({"message": text})}.get(form) or form.format(held)
        assert proof["sessionToken"] not in redact(line)
        assert proof["sessionToken"][-8:] not in redact(line)
        assert proof["signature"] not in redact(line)


def test_a_proof_shows_no_secret_in_its_repr() -> None:
    from vending.access.proof import Proof as Read

    proof = prove(Machine())
    shown = repr(Read.read(proof, FUNCTION))
    assert not [name for name in ("accessKeyId", "nonce", "signature", "sessionToken") if proof[name] in shown]
