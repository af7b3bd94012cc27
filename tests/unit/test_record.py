"""What is written down: the audit record, the log and the metrics, and that none of them holds a secret."""

import io
import json
import logging
import sys
from typing import Any

import botocore.exceptions
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from imburse_auth.errors import VendingError
from tests.fakes import aws_error, private_key, secret
from tests.machine import Context, Machine, api_event
from vending.errors import AuditUnavailable
from vending.record.audit import AuditRecord, AuditTrail
from vending.record.log import make_logger
from vending.record.metrics import VendingMetrics
from vending.record.redaction import REMOVED, redact, redacted

SINGLE = {"credential": "sandbox/tenant-a"}


@pytest.fixture
def machine() -> Machine:
    return Machine()


def metrics_in(out: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"_aws"')]
    return [line for line in lines if "CloudWatchMetrics" in line["_aws"]]


# The audit record


def test_a_vend_is_recorded_with_the_token_as_its_hash_only(machine: Machine) -> None:
    machine.imburse.script = [
        lambda _: machine.imburse.answer({"accessToken": "abc", "expires": 1614351800}, x_correlation_id="0HL:9")
    ]
    machine.invoke(SINGLE | {"correlationId": "order-17"})
    assert (len(machine.audit[0].pop("environment")), machine.audit[0].pop("sequence")) == (32, 1)
    assert machine.audit == [
        {
            "event": "audit",
            "time": "2021-02-26T14:33:20.000Z",
            "requestId": "3a1b6b6e-0000-4000-8000-000000000001",
            "correlationId": "order-17",
            "function": "vend",
            "door": "invoke",
            "caller": "alias/settlement-job",
            "action": "vend",
            "credential": "sandbox/tenant-a",
            "count": 1,
            "decision": "allow",
            "policies": ["settlement-job-small-batches"],
            "outcome": "vended",
            "tokens": [
                {
                    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                    "expires": 1614351800,
                    "source": "exchange",
                    "upstreamCorrelationId": "0HL:9",
                }
            ],
        }
    ]


def test_a_refusal_is_recorded_with_who_and_why(machine: Machine) -> None:
    machine.api(api_event(role="stranger"))
    (record,) = machine.audit
    assert record["caller"] == "arn:aws:iam::123456789012:role/stranger"
    assert (record["decision"], record["outcome"], record["error"]) == ("deny", "refused", "not_authorized")
    assert (record["sourceIp"], record["door"]) == ("10.0.0.7", "api")


def test_a_request_that_is_not_even_valid_is_recorded(machine: Machine) -> None:
    machine.invoke_refusal({"credential": 7})
    machine.invoke_refusal(SINGLE, Context(alias=None))
    assert [record["error"] for record in machine.audit] == ["invalid_request", "not_authorized"]


def test_the_record_is_written_before_the_token_leaves_and_without_it_nothing_does(machine: Machine) -> None:
    machine.audit_failure = OSError("no space left")
    refusal = machine.invoke_refusal(SINGLE)
    assert refusal.code == "audit_unavailable"
    assert machine.imburse.tokens, "the token was exchanged"
    assert not any(token in json.dumps(refusal.document) for token in machine.imburse.tokens)


def test_a_record_that_fails_once_does_not_name_the_token_that_then_stayed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failures = machine.vending._books._audit._write, [OSError("full")]

    def fail_once(line: str) -> None:
        if failures:
            raise failures.pop()
        write(line)

    monkeypatch.setattr(machine.vending._books._audit, "_write", fail_once)
    assert machine.invoke_refusal(SINGLE).code == "audit_unavailable"
    assert [(record["outcome"], record.get("tokens")) for record in machine.audit] == [("failed", None)]


def test_a_record_does_not_wait_in_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw)))
    AuditTrail().write(AuditRecord("r", "c", "vend", "api"), now=0)
    assert raw.getvalue().endswith(b"}\n")


@pytest.mark.parametrize("failure", [OSError("closed"), ValueError("I/O operation on closed file")])
def test_a_trail_that_cannot_be_written_says_so(failure: Exception) -> None:
    def write(_: str) -> None:
        raise failure

    with pytest.raises(AuditUnavailable):
        AuditTrail(write).write(AuditRecord("r", "c", "vend", "api"), now=0)


def test_a_record_is_one_line_on_standard_output_whatever_the_log_level(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "CRITICAL")
    logging.disable(logging.CRITICAL)
    try:
        AuditTrail().write(AuditRecord("r", "c\nd", "vend", "api"), now=0)
    finally:
        logging.disable(logging.NOTSET)
    assert json.loads(capsys.readouterr().out)["event"] == "audit"


def test_an_unsafe_correlation_id_is_replaced_by_the_request_id(machine: Machine) -> None:
    event = api_event()
    event["headers"]["X-Correlation-ID"] = 'x"}\r\n{"event": "audit"'
    machine.api(event)
    assert machine.audit[0]["correlationId"] == machine.audit[0]["requestId"]


def test_a_correlation_id_goes_to_imburse_and_into_the_record(machine: Machine) -> None:
    event = api_event()
    event["headers"]["x-correlation-id"] = "order-17"
    machine.api(event)
    assert machine.audit[0]["correlationId"] == "order-17"
    assert machine.imburse.requests[0].headers["X-Correlation-ID"] == "order-17"


# Metrics


def test_a_vend_is_counted_by_service_and_credential(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.imburse.script = [lambda _: machine.imburse.refuse(503)]
    machine.invoke(SINGLE)
    (line,) = metrics_in(capsys.readouterr().out)
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "ImburseVending"
    assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"], ["service", "credential"]]
    assert (line["service"], line["credential"]) == ("vend", "sandbox/tenant-a")
    assert (line["TokensVended"], line["ExchangeAttempts"], line["SecretReads"]) == ([1.0], [2.0], [1.0])
    assert len(line["ExchangeLatency"]) == 2


def test_a_large_batch_is_counted_whole(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.api(api_event("tokens", body='{"count": 250}'))
    lines = metrics_in(capsys.readouterr().out)
    assert sum(sum(line.get("TokensVended", [])) for line in lines) == 250
    assert sum(len(line.get("ExchangeLatency", [])) for line in lines) == 250
    assert all(line["credential"] == "sandbox/tenant-a" for line in lines)


def test_a_refusal_is_counted_by_code(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.api(api_event(role="stranger"))
    (line,) = metrics_in(capsys.readouterr().out)
    dimensions = line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]
    assert dimensions == [["service"], ["service", "code"], ["service", "credential", "code"]]
    assert (line["RequestsRefused"], line["code"], line["credential"]) == ([1.0], "not_authorized", "sandbox/tenant-a")


def test_what_is_missing_from_a_batch_is_counted(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.imburse.script = [lambda _: machine.imburse.refuse(400)] * 3
    machine.api(api_event("tokens", body='{"count": 5}'))
    lines = metrics_in(capsys.readouterr().out)
    failed = [line for line in lines if "TokensFailed" in line]
    assert [(line["TokensFailed"], line["code"]) for line in failed] == [([3.0], "upstream_rejected")]
    assert failed[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"], ["service", "credential", "code"]]
    assert not [line for line in lines if "RequestsRefused" in line]


def test_a_vend_that_fails_whole_counts_each_token_it_was_asked_for(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.imburse.always = lambda _: machine.imburse.refuse(400)
    machine.api(api_event("tokens", body='{"count": 5}'))
    machine.api(api_event(role="stranger"))
    lines = metrics_in(capsys.readouterr().out)
    assert [line["TokensFailed"] for line in lines if "TokensFailed" in line] == [[5.0]]


def test_a_stranger_cannot_make_a_metric_for_each_name_it_thinks_of(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        machine.api(api_event(role="stranger", name=f"guess-{number}"))
    lines = metrics_in(capsys.readouterr().out)
    assert {line["credential"] for line in lines} == {"(unlisted)"}


def test_a_metric_that_is_lost_does_not_lose_the_token(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("closed")

    monkeypatch.setattr(machine.vending._books._metrics, "visit", broken)
    assert machine.invoke(SINGLE)["accessToken"] in machine.imburse.tokens


# Nothing secret in any output


def secrets_of(machine: Machine) -> list[str]:
    hmacs = [str(request.headers["Authorization"]).rsplit(":", 1)[-1] for request in machine.imburse.requests]
    return [machine.members["privateKey"], *machine.imburse.tokens, *hmacs]


def test_the_libraries_stay_quiet_however_low_the_root_logger_is(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("botocore.parsers").debug("Response body: %s", machine.members["privateKey"])
    logging.getLogger("urllib3.connectionpool").debug("header: Authorization")
    machine.invoke(SINGLE)
    assert "Response body" not in caplog.text
    assert "Authorization" not in caplog.text


def test_urllib3_does_not_log_the_headers_that_it_cannot_read(caplog: pytest.LogCaptureFixture) -> None:
    make_logger("any")
    logging.getLogger("urllib3.connectionpool").warning("Failed to parse headers: %s", "X-Echo: Bearer abc")
    logging.getLogger("botocore.hooks").error("a value")
    assert caplog.text == ""


FAULTS: list[Any] = [
    lambda m: None,
    lambda m: m.aws.put("sandbox/tenant-a", m.members | {"accountId": None}),
    lambda m: m.aws.put("sandbox/tenant-a", m.members | {"privateKey": m.members["privateKey"] + "\n"}),
    lambda m: m.aws.put("sandbox/tenant-a", json.dumps(m.members)[:-1]),
    lambda m: m.aws.put("sandbox/tenant-a", m.members | {"reuse": m.members["privateKey"]}),
    lambda m: m.aws.put("sandbox/tenant-a", m.members | {"baseUrl": f"https://{m.members['privateKey']}.test"}),
    lambda m: m.imburse.keys.clear(),
    lambda m: setattr(m.imburse, "always", lambda r: m.imburse.answer(str(r.headers).encode())),
    lambda m: setattr(m.imburse, "always", lambda r: m.imburse.refuse(400, str(r.headers["Authorization"]))),
    lambda m: setattr(m.imburse, "always", lambda r: requests.ConnectionError(str(r.headers))),
    lambda m: setattr(m.imburse, "always", lambda r: requests.exceptions.InvalidHeader(str(r.headers))),
    lambda m: setattr(m.imburse, "always", lambda r: RuntimeError(str(r.headers))),
    lambda m: setattr(m.aws, "failure", RuntimeError(m.members["privateKey"])),
    lambda m: setattr(m.aws, "failure", aws_error(m.members["privateKey"])),
    lambda m: setattr(m.aws, "failure", botocore.exceptions.EndpointConnectionError(endpoint_url="https://x.test")),
    lambda m: setattr(m, "audit_failure", OSError("full")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=range(len(FAULTS)))
@pytest.mark.parametrize("door", ["api", "invoke", "batch", "identity"])
def test_no_secret_is_in_any_output_on_any_path(
    capsys: pytest.CaptureFixture[str], fault: Any, door: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()  # here and not by the fixture: its log handler must write to what capsys reads
    caplog.set_level(logging.DEBUG)
    fault(machine)
    said: object
    try:
        if door == "invoke":
            said = machine.invoke(SINGLE)
        elif door == "identity":
            said = machine.api(api_event("identity", role="operators"))
        else:
            said = machine.api(
                api_event("tokens" if door == "batch" else "token", body='{"count": 3}' if door == "batch" else None)
            )
    except Exception as exc:  # noqa: BLE001 - what the runtime would make the answer of
        said = f"{exc} {exc!r} {exc.__cause__!r}" + (repr(exc.__context__) if not exc.__suppress_context__ else "")
    captured = capsys.readouterr()
    answered = isinstance(said, dict) and said.get("statusCode", 200) == 200
    everything = f"{captured.out}{captured.err}{caplog.text}{machine.audit}" + ("" if answered else str(said))
    assert answered or '"level":"WARNING"' in captured.out, "the formatted log is part of what is looked at"
    assert not [value for value in secrets_of(machine) if value in everything]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "publicKey": json_values, "privateKey": json_values, "accountId": json_values, "tenantId": json_values, "name": json_values,
        "roles": json_values, "baseUrl": json_values, "reuse": json_values, "poolMin": json_values, "poolMax": json_values,
    },
)  # fmt: skip
DOCUMENTED = {
    "invalid_request", "not_authorized", "credential_not_found", "credential_misconfigured", "upstream_rejected", "upstream_protocol",
    "upstream_throttled", "upstream_unavailable", "secrets_unavailable", "audit_unavailable",
}  # fmt: skip


@given(changes=fields)
def test_any_secret_yields_a_token_or_a_documented_error(changes: dict[str, Any]) -> None:
    machine = Machine()
    machine.aws.put("sandbox/tenant-a", {**machine.members, **changes})
    response = machine.api(api_event())
    body = json.loads(response["body"])
    assert "accessToken" in body or body["type"].rsplit(":", 1)[-1] in DOCUMENTED
    assert machine.members["privateKey"] not in response["body"]


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=200)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.builds(lambda t, e: json.dumps({"accessToken": t, "expires": e}).encode(), json_values, json_values),
    headers=st.dictionaries(
        st.sampled_from(["Date", "Retry-After", "Content-Length", "X-Correlation-ID", "Location"]),
        st.text(st.characters(max_codepoint=255), max_size=40),
    ),
)
def test_any_answer_of_imburse_yields_a_token_or_a_documented_error(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    machine = Machine()
    machine.imburse.always = lambda _: (status, headers, body)
    answer = json.loads(machine.api(api_event())["body"])
    assert "accessToken" in answer or answer["type"].rsplit(":", 1)[-1] in DOCUMENTED
    assert machine.members["privateKey"] not in json.dumps(answer)
    assert json.loads(machine.api(api_event("identity", role="operators"))["body"])


@given(
    event=json_values
    | st.dictionaries(
        st.sampled_from(["credential", "count", "correlationId", "x"]), json_values | st.just("sandbox/tenant-a")
    )
)
def test_any_direct_event_yields_a_token_or_a_documented_error(event: Any) -> None:
    machine = Machine()
    try:
        answer = machine.invoke(event)
    except VendingError as exc:
        answer = json.loads(str(exc))
    assert "accessToken" in answer or answer["type"].rsplit(":", 1)[-1] in DOCUMENTED


# Redaction, the last net


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}", "authorization: hmac key:nonce:1:{}", '"privateKey":"{}"', '\\"accessToken\\": \\"{}\\"', '{{"accessToken": "{}"}}', "key={}",
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_cut_out(text: str) -> None:
    value = private_key()
    assert value not in redact(text.format(value))
    assert REMOVED in redact(text.format(value))


@pytest.mark.parametrize(
    "text",
    [
        r'{"accessToken":"opaque\/OPAQUE"}',
        r'{"privateKey": "opaque\u002BOPAQUE"}',
        r"{\"accessToken\": \"opaque\\/OPAQUE\"}",
        """{"accessToken": "opaque'OPAQUE"}""",
        """{'privateKey': 'opaque"OPAQUE'}""",
    ],
)
def test_a_secret_is_cut_out_to_the_quote_that_ends_it(text: str) -> None:
    assert "OPAQUE" not in redact(text)
    assert redact(text).endswith(('"}', "'}"))


@pytest.mark.parametrize("name", ["privateKey", "private_key", "access-token", "AUTHORIZATION"])
@pytest.mark.parametrize("value", ["opaque", ["opaque"], {"v": "opaque"}])
def test_what_stands_under_the_name_of_a_secret_is_cut_out_whatever_its_shape(name: str, value: object) -> None:
    assert redacted({name: value, "after": 1}) == {name: REMOVED, "after": 1}


def test_a_jwt_is_cut_out_and_a_fingerprint_stays() -> None:
    # pragma: allowlist nextline secret (invented)
    assert redact("token eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln here") == f"token {REMOVED} here"
    fingerprint = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert redact(fingerprint) == fingerprint


def test_what_somebody_logs_by_mistake_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    members = secret()
    make_logger("somebody").error("read %s", json.dumps(members), header=f"Bearer {members['privateKey']}")
    out = capsys.readouterr().out
    assert REMOVED in out
    assert members["privateKey"] not in out


@pytest.mark.parametrize("attempts", [1, 99, 100, 101, 500])
def test_every_exchange_is_measured_however_many_there_were(capsys: pytest.CaptureFixture[str], attempts: int) -> None:
    VendingMetrics("vend").visit("sandbox/tenant-a", attempts, [0.1] * attempts, secret_reads=0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(len(line.get("ExchangeLatency", [])) for line in lines) == attempts
    assert [line["TokensVended"] for line in lines if "TokensVended" in line] == [[attempts]]
    assert {(line["service"], line["credential"]) for line in lines} == {("vend", "sandbox/tenant-a")}
