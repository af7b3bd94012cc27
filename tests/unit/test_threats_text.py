"""The threat model, what others write: no text of theirs becomes a header, a log line, an audit record, or a member of one."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth.client import VendingFailed
from imburse_auth.client.vended import Vended
from imburse_vending.audit_chain import check
from imburse_vending.audit_file import scan
from tests.fakes import private_key
from tests.machine import Context, Machine, api_event
from vending.record.audit import AuditTrail
from vending.record.log import RedactingFormatter, make_logger
from vending.record.redaction import REMOVED

SINGLE = {"credential": "sandbox/tenant-a"}
FORGED = '{"event": "audit", "environment": "0123456789abcdef0123456789abcdef", "sequence": 1, "outcome": "vended", "forged": true}'
# What ends a line or a header somewhere: also what some readers split at (U+0085, U+2028), what becomes CR LF when it is cut to
# a byte (U+010D U+010A), and what cannot be encoded at all.
BREAKS = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\x0b",
    "\x0c",
    "\x1b[2J",
    "\x1c",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\u010d\u010a",
    "\ud800",
    "\u202e",
    "%0d%0a",
    "\\n",
]
NASTY = [f"a{end}X-Evil: 1{end}{end}{FORGED}{end}" for end in BREAKS] + [
    '","forged":true,"x":"',
    '"}\n' + FORGED,
    "\n" + FORGED + "\n",
]
nasty_texts = pytest.mark.parametrize("nasty", NASTY, ids=ascii)

_numbers = itertools.count()

SAFE_HEADER = re.compile(r"[A-Za-z0-9-]+: [ -~]*")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of which no member stands there twice: readers disagree on which of them counts."""
    members = dict(pairs)
    assert len(members) == len(pairs), [name for name, _ in pairs]
    return members


def _check_headers(headers: Any) -> None:
    for name, value in headers.items():
        assert SAFE_HEADER.fullmatch(f"{name}: {value.decode() if isinstance(value, bytes) else value}"), name


def _check_output(out: str, log: Path) -> None:
    """Each line is one JSON object of printable ASCII that nobody else wrote, and the audit chain is whole."""
    lines = out.removesuffix("\n").split("\n")
    assert lines == out.splitlines(), "no reader finds a line in a line"
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        members = json.loads(line, object_pairs_hook=_members)
        assert isinstance(members, dict)
        assert "forged" not in members
    log.write_text(out, encoding="utf-8")
    chains, findings = check([scan(log)])
    assert findings == []
    assert len(chains) == 1


class Doors:
    """A machine that writes its records where its log goes, as on Lambda; each way in returns the headers that came of it."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.machine.vending._books._audit = AuditTrail()

    def ask(self, event: dict[str, Any], direct: object, alias: str | None = "settlement-job") -> None:
        """By both doors. What comes back has headers that are single ones, and no text of the attacker's but as JSON."""
        response = self.machine.api(event)
        _check_headers(response["headers"])
        self._check_answer(json.loads(response["body"], object_pairs_hook=_members))
        self._check_answer(self._invoke(direct, Context(alias=alias)))
        for request in self.machine.imburse.requests:
            _check_headers(request.headers)
            assert re.fullmatch(r"https://[a-z.]+/v1/identity/(hmac|me)", str(request.url))

    def _invoke(self, direct: object, context: Context) -> Any:
        try:
            return self.machine.invoke(direct, context)
        except Exception as exc:  # noqa: BLE001 - like the runtime, which makes errorMessage of any
            message = str(exc)
        assert message.isascii()
        assert message.isprintable()
        return json.loads(message, object_pairs_hook=_members)

    def _check_answer(self, answer: dict[str, Any]) -> None:
        for one in answer.get("tokens", [answer]):
            _check_headers(one.get("headers", {}))


Ask = Callable[[Doors, str], None]


def _event(doors: Doors, nasty: str) -> None:
    event = api_event(environment=nasty, name=nasty, role=nasty, body=nasty)
    event["headers"] |= {"X-Correlation-ID": nasty, nasty: nasty}
    event["requestContext"]["requestId"] = nasty
    event["requestContext"]["identity"] |= {"sourceIp": nasty, "vpceId": nasty, "userAgent": nasty}
    doors.ask(
        event,
        {"credential": nasty, "count": nasty, "correlationId": nasty, nasty: nasty, "proof": {nasty: nasty}},
        alias=nasty,
    )


def _correlation_id(doors: Doors, nasty: str) -> None:
    event = api_event()
    event["headers"]["X-Correlation-ID"] = nasty
    event["requestContext"] |= {"requestId": nasty}
    event["requestContext"]["identity"] |= {"vpceId": nasty, "sourceIp": nasty}
    doors.ask(event, SINGLE | {"correlationId": nasty})


def _id(doors: Doors, nasty: str) -> None:
    doors.ask(api_event(name=nasty), {"credential": f"sandbox/{nasty}"})
    doors.ask(api_event(environment=nasty), {"credential": f"{nasty}/tenant-a"})


def _order(doors: Doors, nasty: str) -> None:
    for order in (
        {"scope": nasty, "why": "x"},
        {"scope": "caller", "target": nasty, "why": "x"},
        {"scope": "everything", "why": nasty},
    ):
        body = {"operate": "freeze", **order}
        event = api_event(role="operators", body=json.dumps(body)) | {"resource": "/v1/brake"}
        doors.ask(event, body)
        doors.machine.table.items.clear()


def _secret(doors: Doors, nasty: str) -> None:
    for field in (
        "publicKey",
        "privateKey",
        "accountId",
        "tenantId",
        "name",
        "baseUrl",
        "reuse",
        "managedBy",
        "createdAt",
        nasty,
    ):
        doors.machine.aws.put("sandbox/tenant-a", doors.machine.members | {field: nasty})
        doors.machine.vending._supply._secrets._entries.clear()
        doors.ask(api_event(), SINGLE)
    doors.machine.aws.put("sandbox/tenant-a", doors.machine.members | {"roles": [nasty]})
    doors.ask(api_event("tokens", body='{"count": 2}'), SINGLE | {"count": 2})


def _imburse(doors: Doors, nasty: str) -> None:
    imburse = doors.machine.imburse
    echoed = nasty.encode("latin-1", "replace").decode("latin-1")
    for payload in (
        {"accessToken": nasty, "expires": 1614351800}, {"accessToken": "good", "expires": nasty}, {nasty: nasty}, [nasty], nasty,
        {"accessToken": f"good-{nasty}", "expires": 1614351800, "correlationId": nasty, "tokenType": nasty},
        {"accessToken": "once", "expires": 1614351800, "correlationId": nasty, "baseUrl": nasty, "headers": {nasty: nasty}},
    ):  # fmt: skip
        imburse.always = lambda _, it=payload: imburse.answer(it, x_correlation_id=echoed, date=echoed)
        doors.ask(api_event(), SINGLE)
    for status in (400, 401, 403, 429, 503, 302, 999):
        imburse.always = lambda _, it=status: imburse.answer(
            {"correlationId": nasty, "errors": [{"errorCode": nasty, "message": nasty}]},
            it,
            retry_after=echoed,
            location=echoed,
            x_correlation_id=echoed,
        )
        doors.ask(api_event(), SINGLE)
    imburse.always = lambda _: requests.ConnectionError(nasty)
    doors.ask(api_event(), SINGLE)


def _identity(doors: Doors, nasty: str) -> None:
    imburse = doors.machine.imburse
    found = {"accounts": [nasty, {nasty: nasty}], "tenants": [{"tenantId": nasty}]}
    imburse.always = lambda request: imburse.obey(request) if request.method == "POST" else imburse.answer(found)
    doors.ask(api_event("identity", role="operators"), SINGLE)


def _aws(doors: Doors, nasty: str) -> None:
    from tests.fakes import aws_error

    for failure in (
        RuntimeError(nasty),
        aws_error("ThrottlingException"),
        OSError(nasty),
        type("Evil\n", (Exception,), {})(nasty),
    ):
        doors.machine.aws.failure = failure
        doors.machine.vending._supply._secrets._entries.clear()
        doors.ask(api_event(), SINGLE)


SOURCES: dict[str, Ask] = {
    "event": _event, "correlation id": _correlation_id, "credential id": _id, "order": _order, "secret": _secret, "imburse": _imburse,
    "identity": _identity, "aws": _aws,
}  # fmt: skip


@nasty_texts
@pytest.mark.parametrize("source", SOURCES)
def test_no_text_of_a_caller_a_secret_or_an_upstream_becomes_a_header_or_a_log_line(
    source: str, nasty: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    doors = Doors()  # not before capsys: its log handler must write to what that reads
    SOURCES[source](doors, nasty)
    captured = capsys.readouterr()
    _check_output(captured.out, tmp_path / "function.log")
    assert captured.err == ""


@pytest.mark.parametrize("nasty", [text for text in NASTY if " " in text], ids=ascii)
def test_what_the_vending_machine_answers_cannot_add_a_header_to_a_callers_request(nasty: str) -> None:
    good = {
        "credential": "sandbox/tenant-a", "accessToken": "abc", "expires": 1614351800, "expiresIn": 1800, "baseUrl": "https://sandbox.imburse.test",
        "headers": {"Authorization": "Bearer abc", "x-account-id": "account-1"},
    }  # fmt: skip
    assert Vended.from_answer(good).headers == good["headers"]
    for changed in (
        {"headers": good["headers"] | {"x-account-id": nasty}}, {"headers": good["headers"] | {nasty: "1"}}, {"baseUrl": nasty},
        {"accessToken": nasty, "headers": good["headers"] | {"Authorization": f"Bearer {nasty}"}}, {"headers": nasty}, {"expires": nasty},
    ):  # fmt: skip
        with pytest.raises(VendingFailed) as caught:
            Vended.from_answer(good | changed)
        assert str(caught.value).isascii()
        assert FORGED not in str(caught.value)


# Whatever is logged, by whomever


@nasty_texts
def test_whatever_is_logged_is_one_line_of_json(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = make_logger(f"anybody-{next(_numbers)}")  # Powertools keeps one handler a name
    # pytest would keep the text, and xdist cannot send half a surrogate.
    logging.getLogger(logger.service).propagate = False
    logger.info("credential reaches", accounts=[nasty, {nasty: nasty}], tenants=nasty)
    logger.error(nasty, reason=nasty)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [json.loads(line, object_pairs_hook=_members)["level"] for line in lines] == ["INFO", "ERROR"]
    assert json.loads(lines[0])["tenants"] == nasty
    assert captured.out.isascii()
    assert captured.err == "", "not even a complaint of logging's own, which has many lines"


CANARY = "SecretSecretSecretSecretSecret0123"
secret_names = st.sampled_from(
    [
        "sessionToken",
        "session_token",
        "X-Amz-Security-Token",
        "signature",
        "privateKey",
        "accessToken",
        "Authorization",
        "x",
    ]
)
secret_values = st.sampled_from(
    [CANARY, f"Bearer {CANARY}", f"Hmac key:nonce:1:{CANARY}", "0" * 64, '"', "\\", "\\\\", '\\"', ""]
) | st.text(max_size=5)
logged = st.recursive(
    secret_values
    | st.builds("".join, st.lists(secret_values, max_size=4))
    | st.builds(json.dumps, st.dictionaries(secret_names, secret_values)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(secret_names, inner, max_size=3) | st.builds(json.dumps, inner)
    ),
    max_leaves=6,
)


@given(logged)
def test_cutting_a_secret_out_of_a_line_leaves_a_line_of_json(value: Any) -> None:
    line = RedactingFormatter().serialize({"before": 1, "value": value, "after": 2})
    members = json.loads(line)
    assert (members["before"], members["after"], members.keys()) == (1, 2, {"before", "value", "after"})
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("name", ["sessionToken", "X-Amz-Security-Token", "signature", "privateKey", "accessToken"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_secret_is_cut_out_however_often_it_was_wrapped_in_json(name: str, depth: int) -> None:
    value = "0123456789abcdef" * 4
    told: Any = {name: value, "after": 2}
    for _ in range(depth):
        told = {"told": json.dumps(told)}
    line = RedactingFormatter().serialize(told)
    assert value not in line
    for _ in range(depth):
        line = json.loads(line)["told"]
    assert json.loads(line) == {name: REMOVED, "after": 2}


@pytest.mark.parametrize("before", ["\n", "\r\n", "\t", "\u2028", '"', "x: "], ids=ascii)
@pytest.mark.parametrize("depth", [0, 1])
def test_a_secret_is_cut_out_wherever_a_line_begins(before: str, depth: int) -> None:
    for value in (private_key(), f"Bearer {private_key()}", "eyJhbGciOiJub25lIn0" + ".eyJzdWIiOiJ4In0.c2lnbmVk"):
        text = f"a{before}{value}"
        line = RedactingFormatter().serialize({"text": json.dumps({"text": text}) if depth else text})
        assert value.removeprefix("Bearer ") not in line
        assert REMOVED in line
