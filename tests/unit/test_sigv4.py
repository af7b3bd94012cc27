"""The verifier against botocore's signer: what was signed is accepted, and nothing else is."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from local.sigv4 import SignatureRefused, WireRequest, verify

KEY_ID, SECRET = "AKIALOCAL", "a secret of the tests"
HOST = "127.0.0.1:3000"

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# What HTTP can carry in a header value, and a signer and a server see as the same text.
header_values = st.text(
    st.characters(codec="latin-1", exclude_categories=["Cc"], exclude_characters="\xa0"), max_size=20
)
header_names = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12).map("X-Test-{}".format)
tokens = st.none() | st.text(string.ascii_letters + string.digits + "+/=", min_size=1, max_size=40)


def sign(
    method: str = "POST",
    target: str = "/v1/thing?b=2&a=1",
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"{}",
    secret: str = SECRET,
    token: str | None = None,
    region: str = "eu-west-1",
    service: str = "execute-api",
) -> WireRequest:
    """Sign as a client does with botocore, and answer what would arrive."""
    request = AWSRequest(method, f"http://{HOST}{target}", headers={"Host": HOST, **(headers or {})}, data=body)
    SigV4Auth(Credentials(KEY_ID, secret, token), service, region).add_auth(request)
    return WireRequest(method, target, tuple(request.headers.items()), body)


def secret_of(access_key_id: str) -> str | None:
    return SECRET if access_key_id == KEY_ID else None


def check(request: WireRequest, *, now: datetime | None = None) -> str:
    return verify(request, secret_of, now or datetime.now(UTC))


def with_header(request: WireRequest, name: str, value: str | None) -> WireRequest:
    others = tuple(pair for pair in request.headers if pair[0].lower() != name.lower())
    return replace(request, headers=others if value is None else (*others, (name, value)))


def error_type(request: WireRequest) -> str:
    with pytest.raises(SignatureRefused) as refused:
        check(request)
    return refused.value.error_type


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
    segments=st.lists(anything, max_size=5),
    query=st.lists(st.tuples(anything, anything), max_size=4),
    headers=st.dictionaries(header_names, header_values, max_size=4),
    body=st.binary(max_size=64),
    token=tokens,
    region=st.sampled_from(["eu-west-1", "us-east-1", "ap-southeast-2"]),
)
def test_whatever_botocore_signs_is_accepted(
    method: str,
    segments: list[str],
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    token: str | None,
    region: str,
) -> None:
    path = "/" + "/".join(quote(segment, safe="") for segment in segments)
    target = f"{path}?{urlencode(query)}" if query else path
    names = {name.lower() for name in headers}
    headers = headers if len(names) == len(headers) else {}

    assert check(sign(method, target, headers=headers, body=body, token=token, region=region)) == KEY_ID


@given(segment=st.text(string.ascii_letters + "!$&'()*+,;=:@._~-", max_size=12))
def test_a_path_may_hold_whatever_the_url_grammar_leaves_unencoded(segment: str) -> None:
    assert check(sign(target=f"/v1/{segment}")) == KEY_ID


@given(at=st.integers(1, 10_000), part=st.sampled_from(["method", "target", "body", "headers"]))
def test_no_changed_character_goes_unnoticed(at: int, part: str) -> None:
    request = sign(body=b'{"count": 5}', headers={"X-Test": "value"}, token="session")

    def changed(text: str) -> str:
        index = at % len(text) or 1
        return text[:index] + ("y" if text[index] == "x" else "x") + text[index + 1 :]

    if part == "headers":
        name, value = request.headers[at % len(request.headers)]
        altered = with_header(request, name, changed(value))
    elif part == "body":
        altered = replace(request, body=changed(request.body.decode()).encode())
    elif part == "target":
        altered = replace(request, target=changed(request.target))
    else:
        altered = replace(request, method=changed(request.method))

    with pytest.raises(SignatureRefused):
        check(altered)


@given(authorization=st.text(max_size=60), target=st.text(max_size=20), value=st.text(max_size=20))
def test_garbage_is_refused_and_never_breaks_the_verifier(authorization: str, target: str, value: str) -> None:
    wire = value.encode("utf-8", "replace").decode("latin-1")
    for header in (authorization, f"AWS4-HMAC-SHA256 {authorization}", _claim(value), _claim("host", scope=value)):
        request = WireRequest(
            "POST", f"/{target}", (("Authorization", header), ("X-Amz-Date", value), ("Host", wire)), b""
        )
        with pytest.raises(SignatureRefused):
            check(request)
        with pytest.raises(SignatureRefused):
            check(with_header(request, "X-Amz-Date", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))


def _claim(signed_headers: str, scope: str = "eu-west-1") -> str:
    credential = f"{KEY_ID}/{datetime.now(UTC):%Y%m%d}/{scope}/execute-api/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed_headers}, Signature={'0' * 64}"


@pytest.mark.parametrize("raw", ["caf\udce9", "\udcff\udcfe"])
def test_bytes_that_are_not_utf8_are_read_as_latin1_as_the_client_wrote_them(raw: str) -> None:
    latin1 = raw.encode("utf-8", "surrogateescape").decode("latin-1")
    request = sign(headers={"X-Test": latin1})

    assert check(with_header(request, "X-Test", raw)) == KEY_ID


def test_a_plus_sign_may_be_signed_as_the_space_it_stands_for() -> None:
    assert check(replace(sign(target="/v1/thing?a=1%202"), target="/v1/thing?a=1+2")) == KEY_ID


def test_a_header_that_was_not_signed_may_change() -> None:
    assert check(with_header(sign(), "User-Agent", "anybody")) == KEY_ID


def test_a_user_agent_counts_where_the_client_signed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # botocore never signs it, other clients do: the verifier goes by what the client says.
    with monkeypatch.context() as patch:
        patch.setattr("botocore.auth.SIGNED_HEADERS_BLACKLIST", [])
        request = sign(headers={"User-Agent": "the signer"})

    assert "user-agent" in request.values("authorization")[0]
    assert check(request) == KEY_ID
    assert error_type(with_header(request, "User-Agent", "anybody")) == "InvalidSignatureException"


@pytest.mark.parametrize("payload_hash", ["UNSIGNED-PAYLOAD", "0" * 64])
def test_only_the_hash_of_the_body_itself_counts(payload_hash: str) -> None:
    assert error_type(sign(headers={"X-Amz-Content-SHA256": payload_hash})) == "InvalidSignatureException"


def test_nothing_signed_is_a_missing_token() -> None:
    assert error_type(with_header(sign(), "Authorization", None)) == "MissingAuthenticationTokenException"


@pytest.mark.parametrize("value", ["", "Bearer abc", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a, Signature=b"])
def test_half_a_signature_is_incomplete_and_is_not_repeated(value: str) -> None:
    with pytest.raises(SignatureRefused) as refused:
        check(with_header(sign(), "Authorization", value))
    assert refused.value.error_type == "IncompleteSignatureException"
    assert not value or value not in refused.value.message


def test_two_authorization_headers_are_incomplete() -> None:
    request = sign()
    twice = replace(request, headers=(*request.headers, ("Authorization", request.values("authorization")[0])))
    assert error_type(twice) == "IncompleteSignatureException"


@pytest.mark.parametrize("date", [None, "yesterday", "2026-01-01T00:00:00Z"])
def test_a_request_without_a_date_that_can_be_read_is_incomplete(date: str | None) -> None:
    assert error_type(with_header(sign(), "X-Amz-Date", date)) == "IncompleteSignatureException"


def test_a_date_header_will_do_where_the_client_has_one() -> None:
    assert check(sign(headers={"Date": "any, botocore writes its own"})) == KEY_ID


def test_an_unknown_key_is_an_invalid_token() -> None:
    with pytest.raises(SignatureRefused) as refused:
        verify(sign(), lambda _: None, datetime.now(UTC))
    assert refused.value.error_type == "UnrecognizedClientException"


def test_another_secret_gives_another_signature() -> None:
    assert error_type(sign(secret="another")) == "InvalidSignatureException"


@pytest.mark.parametrize("service", ["lambda", "s3"])
def test_a_signature_for_another_service_is_refused(service: str) -> None:
    assert error_type(sign(service=service)) == "InvalidSignatureException"


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_region_in_the_scope_must_be_the_one_signed_with(region: str) -> None:
    request = sign()
    header = request.values("authorization")[0].replace("eu-west-1", region)
    assert error_type(with_header(request, "Authorization", header)) == "InvalidSignatureException"


def test_the_host_must_be_signed_and_right() -> None:
    request = sign()
    header = request.values("authorization")[0].replace("host;", "")
    assert error_type(with_header(request, "Authorization", header)) == "InvalidSignatureException"
    assert error_type(with_header(request, "Host", "localhost:3000")) == "InvalidSignatureException"


@pytest.mark.parametrize("seconds", [-299, 0, 299])
def test_five_minutes_of_clock_difference_are_forgiven(seconds: int) -> None:
    assert check(sign(), now=datetime.now(UTC) + timedelta(seconds=seconds)) == KEY_ID


@pytest.mark.parametrize(("seconds", "words"), [(-302, "Signature not yet current"), (302, "Signature expired")])
def test_more_is_not_and_the_message_says_so(seconds: int, words: str) -> None:
    request = sign()
    with pytest.raises(SignatureRefused, match=f"{words}: {request.values('x-amz-date')[0]} is ") as refused:
        check(request, now=datetime.now(UTC) + timedelta(seconds=seconds))
    assert refused.value.error_type == "InvalidSignatureException"


def test_the_path_is_encoded_twice_as_for_every_service_but_s3() -> None:
    """A path signed as S3 does, encoded once, is another signature: API Gateway refuses it too."""

    class EncodedOnce(SigV4Auth):
        def _normalize_url_path(self, path: str) -> str:
            return path

    target = "/v1/a%20b"
    request = AWSRequest("POST", f"http://{HOST}{target}", headers={"Host": HOST}, data=b"")
    EncodedOnce(Credentials(KEY_ID, SECRET), "execute-api", "eu-west-1").add_auth(request)

    assert error_type(WireRequest("POST", target, tuple(request.headers.items()), b"")) == "InvalidSignatureException"
