"""The threat model, as an attacker tries it at both doors: where the machine connects to, who it believes, what a refusal tells.

The README's table has a row for each of these; `test_threats_model.py` holds the two together.
"""

from __future__ import annotations

import functools
import gc
import itertools
import json
import sys
import unicodedata
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import pytest
import requests
import urllib3

from imburse_auth.transport import Transport
from tests.fakes import BASE_URL, Answered, FakeImburse, secret
from tests.machine import ACCOUNT, Context, Machine, api_event

SINGLE = {"credential": "sandbox/tenant-a"}
LISTED = "sandbox.imburse.test"
OTHERS = "evil.example"
METADATA = "169.254.169.254"


# SSRF through baseUrl


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where the real transport goes: the address of every connection that it tries to open. None succeeds."""
    tried: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], *_: object, **__: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(urllib3.util.connection, "create_connection", refuse)
    return tried


SPELLINGS = [
    # another host, in front, behind, or hidden in the listed one
    f"https://{OTHERS}", f"https://{LISTED}.{OTHERS}", f"https://{OTHERS}.{LISTED}", f"https://x{LISTED}", f"https://{LISTED}x",
    f"https://{LISTED}@{OTHERS}", f"https://{OTHERS}@{LISTED}", f"https://{LISTED}:443@{OTHERS}", f"https://{LISTED}%40{OTHERS}",
    f"https://{OTHERS}/{LISTED}", f"https://{OTHERS}#{LISTED}", f"https://{OTHERS}?{LISTED}", f"https://{LISTED}#@{OTHERS}/",
    f"https://{OTHERS}\\@{LISTED}", f"https://{LISTED}\\.{OTHERS}", f"https:\\\\{OTHERS}", f"https:///{OTHERS}", f"https:{OTHERS}",
    f"https://{LISTED},{OTHERS}", f"https://{LISTED};{OTHERS}", f"https://{LISTED} {OTHERS}", f"https://{LISTED}\t.{OTHERS}",
    f"https://{LISTED}\r\nHost: {OTHERS}", f"https://{LISTED}\0.{OTHERS}", f" https://{OTHERS}", f"https://{OTHERS}\n", f"//{OTHERS}",
    # the listed host, otherwise: another port, a trailing dot, its domain, a path that leads elsewhere
    f"https://{LISTED}:8443", f"https://{LISTED}:80", f"https://{LISTED}:0", f"https://{LISTED}:443443", f"https://{LISTED}:-1",
    f"https://{LISTED}:４４３", f"https://{LISTED}.", f"https://{LISTED}./", "https://imburse.test", "https://.imburse.test",
    f"https://{LISTED}/v1/../..", f"https://{LISTED}/.", f"https://{LISTED}/%2e%2e/", f"https://{LISTED}/x/", f"https://{LISTED}?a=b",
    # letters and dots that look like it
    "https://sandb\u043ex.imburse.test", "https://sandbox.\u0456mburse.test", "https://sandbox\u3002imburse\u3002test", "https://ｓandbox.imburse.test",
    "https://sandbo\u200dx.imburse.test", "https://xn--sandbx-3ve.imburse.test", "https://sandbox.imbur\u017fe.test", "https://\u202etset.esrubmi",
    # this machine, its neighbours, and what AWS keeps there
    f"http://{METADATA}", f"https://{METADATA}", f"http://{METADATA}/latest/meta-data/iam/security-credentials/", "http://[fd00:ec2::254]",
    "http://2852039166", "http://0xa9fea9fe", "http://0251.0376.0251.0376", "http://169.254.43518", "http://[::ffff:169.254.169.254]",
    "http://[::ffff:a9fe:a9fe]", "http://169.254.170.2/v2/credentials", "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next",
    "http://127.0.0.1", "http://localhost", "http://[::1]", "https://127.1", "https://0", "https://[::]", "https://2130706433",
    "https://127.0.0.1.nip.io", "https://10.0.0.1", f"http://{LISTED}",
    # no http at all
    f"ftp://{LISTED}", "file:///proc/self/environ", f"gopher://{OTHERS}", f"javascript://{LISTED}", f"httpsx://{LISTED}", "https", "https://",
    f"data:,{OTHERS}", LISTED, f"https://[{LISTED}]", "https://[::1", f"https://{LISTED}]",
]  # fmt: skip
SAME = [
    BASE_URL, f"{BASE_URL}/", f"{BASE_URL}//", f"{BASE_URL}:443", f"{BASE_URL}:443/", f"{BASE_URL}:", BASE_URL.upper(),
    f"HTTPS://{LISTED.title()}", f"https://{LISTED}:0443",
]  # fmt: skip


@pytest.mark.parametrize("spelling", [*SPELLINGS, *SAME], ids=ascii)
def test_no_spelling_of_a_base_url_makes_the_machine_connect_to_a_host_that_is_not_listed(
    connections: list[tuple[str, int]], spelling: str
) -> None:
    machine = Machine(real_transport=Transport())
    machine.aws.put("sandbox/tenant-a", machine.members | {"baseUrl": spelling})
    refusals = [machine.api_refusal(api_event()), machine.invoke_refusal(SINGLE)]
    refusals.append(machine.api_refusal(api_event("identity", role="operators")))
    if spelling in SAME:
        assert set(connections) == {(LISTED, 443)}
        return
    assert connections == []
    assert {refusal.code for refusal in refusals} == {"credential_misconfigured"}
    # Nor does a caller learn where the secret points.
    assert all(OTHERS not in json.dumps(refusal.document) for refusal in refusals)


# A redirect that carries the header


LOCATIONS = [
    f"https://{OTHERS}/v1/identity/hmac", f"{BASE_URL}/elsewhere", f"{BASE_URL}:8443/v1/identity/hmac", f"http://{LISTED}/v1/identity/hmac",
    "/elsewhere", "elsewhere", f"//{OTHERS}/", f"https://{LISTED}@{OTHERS}/", f"http://{METADATA}/latest/meta-data", "?", "",
]  # fmt: skip
REDIRECTS = (300, 301, 302, 303, 304, 305, 306, 307, 308, 310, 399)


def _redirect(
    imburse: FakeImburse, door: str, status: int, headers: dict[str, str], request: requests.PreparedRequest
) -> Answered:
    if door == "identity" and request.method == "POST":
        return imburse.obey(request)
    return imburse.refuse(status, **headers)


@pytest.mark.parametrize("status", [*REDIRECTS, 200, 401, 503])
@pytest.mark.parametrize("door", ["exchange", "identity"])
def test_no_redirect_makes_a_second_request_that_carries_the_header(status: int, door: str) -> None:
    """With 200, 401 and 503 the header is only there to tempt: what is repeated then goes to the same address."""
    route, role = ("token", "orders") if door == "exchange" else ("identity", "operators")
    for location in LOCATIONS:
        machine = Machine()
        tempting = {"location": location, "refresh": f"0; url={location}", "content_location": location}
        machine.imburse.always = functools.partial(_redirect, machine.imburse, door, status, tempting)
        refusal = machine.api_refusal(api_event(route, role=role))
        asked = [str(request.url) for request in machine.imburse.requests]
        assert set(asked) <= {f"{BASE_URL}/v1/identity/hmac", f"{BASE_URL}/v1/identity/me"}
        if status in REDIRECTS:
            assert refusal.code == "upstream_protocol"
            assert len(asked) == (2 if door == "identity" else 1)
        headers = [str(request.headers["Authorization"]) for request in machine.imburse.requests]
        assert len(set(headers)) == len(headers), "and none carries a header that was sent before"


# Alias and caller spoofing


ORDERS = f"arn:aws:iam::{ACCOUNT}:role/orders"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/session"


class ClientContext:
    """What a caller may send along with an invoke: base64 JSON of its own making."""

    custom: ClassVar[dict[str, str]] = {
        "caller": "alias/settlement-job", "alias": "settlement-job", "userArn": SESSION,
        "invoked_function_arn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend:settlement-job",
    }  # fmt: skip
    env = custom
    client = custom


class SpoofingContext(Context):
    """The context of who came through `live`, the alias of nobody, with everything else that they can set."""

    client_context = ClientContext()
    identity = ClientContext()
    tenant_id = "settlement-job"
    function_version = "settlement-job"
    log_stream_name = "settlement-job"


CLAIMS: dict[str, Any] = {
    "caller": "alias/settlement-job", "alias": "settlement-job", "principal": ORDERS, "userArn": SESSION, "role": "orders", "via": "proof",
    "account": ACCOUNT, "qualifier": "settlement-job", "Qualifier": "settlement-job", "identity": {"userArn": SESSION},
    "requestContext": {"identity": {"userArn": SESSION}}, "headers": {"x-amzn-caller": ORDERS}, "context": {"via": "api"},
    "invokedFunctionArn": f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:imburse-vending-vend:settlement-job",
    "clientContext": ClientContext.custom, "client_context": ClientContext.custom, "door": "api", "sourceIp": "10.0.0.1", "vpce": "vpce-0123456789abcdef0",
    "__class__": "x", "_caller": ORDERS, "": "alias/settlement-job", "caller\0": "x", "сaller": ORDERS,
}  # fmt: skip


@pytest.mark.parametrize("alias", ["live", None, "$LATEST", "3"])
@pytest.mark.parametrize("claim", [{name: value} for name, value in CLAIMS.items()] + [CLAIMS, {}], ids=ascii)
def test_no_event_field_and_no_client_context_makes_a_caller_of_who_came_through_another_alias(
    alias: str | None, claim: dict[str, Any]
) -> None:
    machine = Machine()
    refusal = machine.invoke_refusal(SINGLE | claim, SpoofingContext(alias=alias))
    assert refusal.code == ("invalid_request" if claim and alias == "live" else "not_authorized")
    assert (machine.aws.reads, machine.imburse.requests, machine.table.calls) == ([], [], [])
    assert machine.audit[-1].get("caller") == ("alias/live" if alias == "live" else None)


def _set(event: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *parents, last = path.split(".")
    node = event
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return event


@pytest.mark.parametrize(
    "path",
    [
        "requestContext.identity.caller", "requestContext.identity.user", "requestContext.identity.userARN", "requestContext.identity.UserArn",
        "requestContext.identity.accessKey", "requestContext.identity.cognitoIdentityId", "requestContext.identity.principalOrgId",
        "requestContext.authorizer", "requestContext.authorizer.iam.userArn", "requestContext.userArn", "requestContext.accountId",
        "headers.X-Amzn-Caller", "headers.userArn", "headers.X-Amz-Security-Token", "headers.X-Forwarded-For", "headers.Authorization",
        "headers.X-Amzn-Request-Context", "multiValueHeaders.userArn", "stageVariables.userArn", "pathParameters.userArn", "pathParameters.caller",
        "identity.userArn", "userArn", "caller", "proof",
    ],
)  # fmt: skip
def test_no_header_and_no_other_field_of_a_proxy_event_makes_another_caller(path: str) -> None:
    for value in (SESSION, [SESSION], {"userArn": SESSION}):
        machine = Machine()
        event = _set(api_event(role="stranger"), path, value)
        assert machine.api_refusal(event, SpoofingContext(alias="settlement-job")).code == "not_authorized"
        assert machine.audit[-1]["caller"] == f"arn:aws:iam::{ACCOUNT}:role/stranger"
        assert (machine.aws.reads, machine.imburse.requests) == ([], [])


def test_a_body_can_neither_name_a_caller_nor_the_credential_of_another() -> None:
    machine = Machine()
    for claim in CLAIMS:
        body = json.dumps({"count": 1, claim: CLAIMS[claim]})
        assert machine.api_refusal(api_event("tokens", role="stranger", body=body)).status in (400, 403)
        assert machine.api_refusal(api_event("tokens", body=body)).code == "invalid_request"
    assert machine.aws.reads == []


# Policy bypass by case, Unicode and path normalisation


FORBIDDEN = """
permit (principal, action == Action::"vend", resource);
@id("not-this-one") forbid (principal, action, resource == Credential::"sandbox/tenant-a");
@id("nor-there") forbid (principal, action, resource in Environment::"production");
"""


def _look_alikes(text: str) -> list[str]:
    """Other spellings of an id's part that something on the way might fold into it."""
    first, rest, code = text[0], text[1:], ord(text[0])
    wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isalnum() else letter for letter in text)
    cased = {text.upper(), text.title(), text.swapcase(), first.upper() + rest}
    alike = {
        wide,
        wide[0] + rest,
        text.replace("a", "\u0430"),
        text.replace("o", "\u03bf"),
        text.replace("n", "\u207f"),
        text.replace("-", "\u2010"),
        text.replace("s", "\u017f"),
    }
    combined = {unicodedata.normalize(form, f"{first}\u0301{rest}") for form in ("NFC", "NFD")} | {
        text + "\u0301",
        text + "\ufeff",
        "\u200b" + text,
        text + "\u00ad",
    }
    tails = {
        text + tail
        for tail in (
            " ",
            "\t",
            "\n",
            "\r",
            "\0",
            "/",
            "//",
            ".",
            "/.",
            "/./",
            "/..",
            ";",
            ";x=1",
            "?",
            "#",
            "%20",
            "%00",
            "%2f",
            "\\",
        )
    }
    heads = {
        head + text
        for head in (" ", "\n", "/", "./", "../", "..;/", "//", "%2e/", "%2f", "\\", "..%2f", "%252e%252e%252f")
    }
    escaped = {
        f"%{code:02x}{rest}",
        f"%25{code:02x}{rest}",
        f"&#{code};{rest}",
        f"\\u{code:04x}{rest}",
        text.replace("-", "%2d"),
        quote(quote(f"{text}/", safe=""), safe=""),
    }
    walked = {f"x/../{text}", f"{text}/../{text}", f"{text}/x/.."}
    return sorted((cased | alike | combined | tails | heads | escaped | walked) - {text})


@pytest.mark.parametrize("part", ["environment", "name"])
def test_no_other_spelling_of_a_forbidden_credential_reaches_its_key(part: str) -> None:
    """All is permitted here but one credential and one environment: whatever were folded into their names would be vended."""
    machine = Machine(policy=FORBIDDEN)
    for environment, name in (("sandbox", "tenant-a"), ("production", "tenant-a")):
        machine.aws.put(f"{environment}/{name}", machine.members)
        plain = {"environment": environment, "name": name}
        assert machine.api_refusal(api_event(**plain)).code == "not_authorized"
        for spelling in _look_alikes(plain[part]):
            parts = plain | {part: spelling}
            event = api_event(**parts)
            for path in (f"/v1/credentials/{environment}/{name}/token", f"/v1/credentials/{spelling}/{name}/token"):
                refusal = machine.api_refusal(event | {"path": path})
                assert refusal.code in ("invalid_request", "not_authorized", "credential_not_found"), ascii(spelling)
            refusal = machine.invoke_refusal(
                {"credential": f"{parts['environment']}/{parts['name']}"}, Context(alias="any")
            )
            assert refusal.code in ("invalid_request", "not_authorized", "credential_not_found"), ascii(spelling)
    # What is another plain name is another credential, looked for under exactly that name; none of them is the forbidden one.
    assert not {"imburse/sandbox/tenant-a", "imburse/production/tenant-a"} & set(machine.aws.reads)
    assert all(name.isascii() and name.count("/") == 2 for name in machine.aws.reads)
    assert machine.imburse.requests == []


def test_the_path_that_the_parameters_were_taken_from_decides_nothing() -> None:
    machine = Machine()
    for path in (
        "/v1/credentials/sandbox/tenant-a/token",
        "/V1/Credentials/sandbox/tenant-a/token",
        "//v1/credentials/sandbox/tenant-a/token",
    ):
        event = api_event(name="tenant-b", role="settlement") | {"path": path}
        assert machine.api_refusal(event).code == "not_authorized"
        event["requestContext"] |= {"path": path, "resourcePath": path}
        assert machine.api_refusal(event).code == "not_authorized"
    for resource in (
        "/v1/credentials/{environment}/{name}/TOKEN",
        "/v1/credentials/{environment}/{name}/token/",
        "/v1/credentials/{environment}/{name}/%74oken",
    ):
        assert machine.api_refusal(api_event() | {"resource": resource}).code == "invalid_request"
    assert machine.aws.reads == []


@pytest.mark.parametrize("role", _look_alikes("orders"), ids=ascii)
def test_no_other_spelling_of_a_role_is_that_role(role: str) -> None:
    machine = Machine()
    assert machine.api_refusal(api_event(role=role)).code == "not_authorized"
    assert machine.audit[-1].get("caller") != ORDERS
    assert machine.aws.reads == []


# What the time of a refusal tells


def _steps(ask: Callable[[], object]) -> list[str]:
    """Every call that was made meanwhile, of Python and of C, in its order."""
    steps: list[str] = []

    def note(frame: FrameType, kind: str, argument: Any) -> None:
        if kind == "call":
            steps.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")
        elif kind == "c_call":
            steps.append(f"{argument.__module__}.{argument.__qualname__}")

    gc.collect()
    gc.disable()  # what it would call while it cleans up after others is no step of ours
    sys.setprofile(note)
    try:
        ask()
    finally:
        sys.setprofile(None)
        gc.enable()
    return steps


NAMES = {  # all of one length: more to write would take longer, whoever is asked for
    "tenant-b": "there, and a rule for somebody else names it",
    "tenant-y": "there, and no rule names it",
    "tenant-z": "not there",
}


# So many rules that not all of them are asked for each request: who chooses them must not go by what is asked for. One names
# a credential and is open to anybody, one is about the caller of the direct door, and the rest are about others.
RULES = "".join(
    f'@id("r{number}") permit (principal == Caller::"arn:aws:iam::{ACCOUNT}:role/r{number}", action == Action::"vend",'
    f' resource == Credential::"sandbox/x{number}");\n'
    for number in range(40)
) + (
    '@id("open") permit (principal, action == Action::"vend", resource == Credential::"sandbox/tenant-b")'
    ' when { context.via == "proof" };\n'
    '@id("group") permit (principal in Account::"210987654321", action, resource == Credential::"sandbox/tenant-b");\n'
    '@id("own") forbid (principal == Caller::"alias/settlement-job", action, resource == Credential::"sandbox/x1");\n'
)


def _sandbox(name: str, door: str) -> Callable[[Machine], Any]:
    if door == "invoke":
        return lambda machine: machine.invoke_refusal({"credential": f"sandbox/{name}"})
    return lambda machine: machine.api(api_event(role="stranger", name=name))


@pytest.mark.parametrize("policy", [Machine.policy, RULES], ids=["few rules", "many rules"])
@pytest.mark.parametrize("door", ["api", "invoke"])
def test_the_refusals_for_an_existing_and_an_unknown_credential_take_the_same_steps(door: str, policy: str) -> None:
    """The same calls in the same order, so that there is nothing in between of which the time could be taken."""
    machine = Machine(policy=policy)
    for name in ("tenant-b", "tenant-y"):
        machine.aws.put(f"sandbox/{name}", secret())
    for name in NAMES:  # what is done once, is done
        _sandbox(name, door)(machine)
    taken = {name: _steps(functools.partial(_sandbox(name, door), machine)) for name in NAMES}
    assert len(taken["tenant-z"]) > 100
    for one, other in itertools.pairwise(NAMES):
        assert taken[one] == taken[other], f"{NAMES[one]}; {NAMES[other]}"
    assert (machine.aws.reads, machine.imburse.requests, machine.table.calls) == ([], [], [])
    assert {record["error"] for record in machine.audit} == {"not_authorized"}


@pytest.mark.parametrize("door", ["api", "invoke"])
def test_the_refusals_for_an_existing_and_an_unknown_credential_are_the_same_to_the_byte(door: str) -> None:
    machine = Machine()
    for name in ("tenant-b", "tenant-y"):
        machine.aws.put(f"sandbox/{name}", secret())
    answers = [_sandbox(name, door)(machine) for name in NAMES]
    assert answers[0] == answers[1] == answers[2]
    lines = [json.dumps(record | {"credential": "", "previous": "", "sequence": 0}) for record in machine.audit[1:]]
    assert lines[0] == lines[1], "and the record that is written first is as long"


def test_the_listed_host_is_what_the_tables_above_are_about() -> None:
    assert urlsplit(BASE_URL).hostname == LISTED
