"""VendedAuth on a requests session: whose token goes where, and what is tried again."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
import requests
from requests.adapters import HTTPAdapter

from imburse_auth.client import ApiSource, Misdirected, VendedAuth, VendedSession, VendingFailed, sources
from tests.client_wire import CREDENTIAL, ME, SPENT, CountingSource, Wire, failing, reply, unauthorized
from tests.fakes import BASE_URL, NOW, Clock

OWN = ("Authorization", "x-account-id", "x-tenant-id")


@pytest.fixture
def source() -> CountingSource:
    return CountingSource()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def session(wire: Wire, source: CountingSource) -> requests.Session:
    session = wire.session()
    session.auth = VendedAuth(CREDENTIAL, source, clock=Clock())
    return session


# A token each


def test_each_request_has_a_token_of_its_own_and_the_headers_that_go_with_it(
    session: requests.Session, wire: Wire
) -> None:
    for _ in range(3):
        session.get(ME)
    assert wire.tokens == ["token-1", "token-2", "token-3"]
    assert wire.sent[0].headers["x-account-id"] == "account-1"
    assert wire.sent[0].headers["x-tenant-id"] == "tenant-a"


def test_an_account_keys_request_carries_no_tenant_whatever_the_session_says(wire: Wire) -> None:
    headers = {"Authorization": "Bearer token-1", "x-account-id": "account-1"}
    session = wire.session()
    session.headers.update({"X-Tenant-Id": "left over", "authorization": "Basic left over"})
    session.get(ME, auth=VendedAuth(CREDENTIAL, CountingSource(headers=headers)))
    assert "x-tenant-id" not in {name.lower() for name in wire.sent[0].headers}
    assert wire.sent[0].headers["Authorization"] == "Bearer token-1"


def test_twenty_threads_share_one_auth_and_no_token(session: requests.Session, wire: Wire) -> None:
    session.auth = VendedAuth(CREDENTIAL, CountingSource(), ahead=7, clock=Clock())
    with ThreadPoolExecutor(20) as pool:
        assert {response.status_code for response in pool.map(lambda _: session.get(ME), range(200))} == {200}
    assert len(set(wire.tokens)) == len(wire.tokens) == 200


def test_without_a_token_nothing_is_sent(session: requests.Session, source: CountingSource, wire: Wire) -> None:
    source.before = failing("not_authorized", status=403)
    with pytest.raises(VendingFailed, match="not_authorized"):
        session.get(ME)
    assert wire.sent == []


def test_its_repr_names_the_credential_and_no_token(session: requests.Session) -> None:
    session.get(ME)
    assert repr(session.auth) == "VendedAuth('sandbox/tenant-a')"


# To nobody else


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.test/v1/identity/me",
        "http://sandbox.imburse.test/v1/identity/me",
        "https://sandbox.imburse.test:8443/v1/identity/me",
        "https://sandbox.imburse.test.elsewhere.test/",
        "https://sandbox.imburse.test@elsewhere.test/",
        "https://elsewhere.test/?https://sandbox.imburse.test/",
        "https://elsewhere.test#@sandbox.imburse.test/",
        "https://elsewhere.test\\@sandbox.imburse.test/",
    ],
)
def test_a_request_to_another_host_is_refused_before_anything_is_sent(
    session: requests.Session, wire: Wire, url: str
) -> None:
    with pytest.raises(Misdirected, match=r"only go to https://sandbox\.imburse\.test:443"):
        session.get(url)
    assert wire.sent == []


# pragma: allowlist nextline secret (invented)
@pytest.mark.parametrize("url", ["https://SANDBOX.imburse.test:443/v1", "https://user:word@sandbox.imburse.test/v1"])
def test_the_same_host_written_otherwise_is_the_same_host(session: requests.Session, wire: Wire, url: str) -> None:
    session.get(url)
    assert wire.tokens == ["token-1"]


def test_the_refusal_names_the_hosts_and_neither_token_nor_query(session: requests.Session) -> None:
    with pytest.raises(Misdirected) as caught:
        session.get("https://elsewhere.test/v1?account=secret")
    assert "https://elsewhere.test:443" in str(caught.value)
    assert "token-" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_refused_requests_token_is_the_next_ones(
    session: requests.Session, wire: Wire, source: CountingSource
) -> None:
    for _ in range(3):
        with pytest.raises(Misdirected):
            session.get("https://elsewhere.test/")
    session.get(ME)
    assert wire.tokens == ["token-1"]
    assert len(source.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "https://elsewhere.test/v1",
        "//elsewhere.test/v1",
        "https://sandbox.imburse.test:8443/v1",
        "http://sandbox.imburse.test/v1",
        "https://sandbox.imburse.test@elsewhere.test/",
        "https://[elsewhere/",
    ],
)
def test_a_redirect_to_another_host_carries_none_of_the_headers(
    session: requests.Session, wire: Wire, status: int, location: str
) -> None:
    wire.script = [reply(status, location=location)]
    try:
        session.post(ME, data=b"body")
    except ValueError:
        assert "[" in location or status >= 307  # what is no URL, or would take the body along, ends the request
        assert len(wire.sent) == 1
    for request in wire.sent[1:]:
        assert request.body == b""
        assert not {name.lower() for name in OWN} & {name.lower() for name in request.headers}


def test_a_redirect_that_would_take_the_body_to_another_host_is_refused(session: requests.Session, wire: Wire) -> None:
    wire.script = [reply(307, location="https://elsewhere.test/")]
    with pytest.raises(Misdirected, match=r"https://elsewhere\.test"):
        session.post(ME, json={"amount": 100})
    assert len(wire.sent) == 1
    assert wire.raws[0].closed


def test_a_redirect_that_comes_back_from_another_host_does_so_with_nothing(
    session: requests.Session, wire: Wire, source: CountingSource
) -> None:
    wire.script = [reply(302, location="https://elsewhere.test/"), reply(302, location=ME), reply()]
    session.get(ME)
    assert wire.tokens == ["token-1", None, None]
    assert "x-account-id" not in wire.sent[2].headers
    assert len(source.asked) == 1


@pytest.mark.parametrize("location", [BASE_URL + "/v2", "/v2", "//sandbox.imburse.test/v2", "v2?a=b c"])
def test_a_redirect_within_the_host_gets_a_token_of_its_own(
    session: requests.Session, wire: Wire, location: str
) -> None:
    wire.script = [reply(307, location=location), reply(307, location=location)]
    response = session.post(ME, data=b"body")
    assert wire.tokens == ["token-1", "token-2", "token-3"]
    assert [request.body for request in wire.sent] == [b"body"] * 3
    assert [past.status_code for past in response.history] == [307, 307]
    assert wire.sent[2].headers["x-tenant-id"] == "tenant-a"


def test_a_redirect_for_which_there_is_no_token_ends_the_request_and_frees_the_connection(
    session: requests.Session, wire: Wire, source: CountingSource
) -> None:
    def redirect(_: Any) -> tuple[int, dict[str, str], bytes]:
        source.before = failing()
        return 302, {"location": "/v2"}, b""

    wire.script = [redirect]
    with pytest.raises(VendingFailed):
        session.get(ME)
    assert wire.tokens == ["token-1"]
    assert wire.raws[0].closed


def test_a_redirected_answer_to_a_second_try_is_followed_with_a_third_token(
    session: requests.Session, wire: Wire
) -> None:
    wire.script = [SPENT, reply(302, location="/v2")]
    assert session.get(ME).status_code == 200
    assert wire.tokens == ["token-1", "token-2", "token-3"]


def test_a_second_try_that_is_redirected_to_another_host_leaks_nothing(session: requests.Session, wire: Wire) -> None:
    wire.script = [SPENT, reply(302, location="https://elsewhere.test/")]
    session.get(ME)
    assert wire.tokens == ["token-1", "token-2", None]
    assert "x-account-id" not in wire.sent[2].headers


# Tried again


@pytest.mark.parametrize(
    "code", ["ACCESS_TOKEN_ALREADY_USED", "ACCESS_TOKEN_EXPIRED", "API_KEY_REVOKED", "API_KEY_NOT_FOUND"]
)
def test_a_spent_token_is_replaced_once(session: requests.Session, wire: Wire, code: str) -> None:
    wire.script = [unauthorized(code)]
    response = session.post(ME, json={"amount": 100})
    assert (response.status_code, [past.status_code for past in response.history]) == (200, [401])
    assert wire.tokens == ["token-1", "token-2"]
    assert [request.body for request in wire.sent] == [b'{"amount": 100}'] * 2
    assert response.request.headers["Authorization"] == "Bearer token-2"
    assert wire.raws[0].closed


def test_the_second_try_does_not_take_what_was_taken_ahead_with_the_dead_one(
    wire: Wire, source: CountingSource
) -> None:
    session = wire.session()
    session.auth = VendedAuth(CREDENTIAL, source, ahead=3, clock=Clock())
    session.get(ME)
    dead = {"token-2", "token-3"}  # as when the key behind them is rotated away

    def judge(sent: Any) -> tuple[int, dict[str, str], bytes]:
        token = sent.headers["Authorization"].removeprefix("Bearer ")
        return (unauthorized("API_KEY_REVOKED") if token in dead else reply())(sent)

    wire.script = [judge] * 4
    assert [session.get(ME).status_code for _ in range(3)] == [200, 200, 200]
    assert wire.tokens == ["token-1", "token-2", "token-4", "token-5", "token-6"]
    assert [count for _, count, _ in source.asked] == [3, 1, 3]


def test_a_second_401_is_the_callers(session: requests.Session, wire: Wire) -> None:
    wire.script = [SPENT, SPENT, SPENT]
    assert session.get(ME).status_code == 401
    assert wire.tokens == ["token-1", "token-2"]


@pytest.mark.parametrize("code", [None, "TENANT_ID_HAS_NO_ACCESS", "access_token_expired", "x" * 100])
def test_a_401_that_a_new_token_would_not_cure_is_not_tried_again(
    session: requests.Session, wire: Wire, code: str | None
) -> None:
    wire.script = [unauthorized(code)]
    assert session.get(ME).status_code == 401
    assert len(wire.sent) == 1


def test_any_401_is_tried_again_if_the_token_ran_out_on_its_way(wire: Wire, source: CountingSource) -> None:
    clock = Clock()
    session = wire.session()
    session.auth = VendedAuth(CREDENTIAL, source, clock=clock)

    def slow(_: Any) -> tuple[int, dict[str, str], bytes]:
        clock.now = NOW + 1801
        return 401, {}, b"<html>"

    wire.script = [slow]
    assert session.get(ME).status_code == 200


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 429, 500, 503])
def test_no_other_status_is_ever_tried_again(session: requests.Session, wire: Wire, status: int) -> None:
    wire.script = [reply(status, {"errors": [{"errorCode": "ACCESS_TOKEN_EXPIRED"}]})]
    assert session.get(ME).status_code == status
    assert len(wire.sent) == 1


def test_codes_of_the_callers_own_replace_ours(wire: Wire, source: CountingSource) -> None:
    auth = VendedAuth(CREDENTIAL, source, spent_codes={"TOKEN_TIRED"})
    wire.script = [unauthorized("TOKEN_TIRED"), reply(), SPENT]
    assert [wire.session().get(ME, auth=auth).status_code for _ in range(2)] == [200, 401]


def test_a_file_is_sent_again_from_where_it_stood(session: requests.Session, wire: Wire) -> None:
    file = io.BytesIO(b"head body")
    file.seek(5)
    wire.script = [SPENT]
    assert session.put(ME, data=file).status_code == 200
    assert [request.body for request in wire.sent] == [b"body", b"body"]


class Pipe(io.RawIOBase):
    """A file that cannot go back."""

    def __init__(self) -> None:
        self._left = [b"once"]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._left.pop() if self._left else b""


class Forgetful(io.BytesIO):
    """A file that says it can go back, and cannot."""

    def seek(self, *_: Any) -> int:
        raise OSError("gone")


@pytest.mark.parametrize(
    "body", [lambda: iter([b"once"]), lambda: (piece for piece in [b"once"]), Pipe, lambda: Forgetful(b"once")]
)
def test_a_body_that_cannot_be_sent_again_is_not(session: requests.Session, wire: Wire, body: Any) -> None:
    wire.script = [SPENT]
    response = session.post(ME, data=body())
    assert response.status_code == 401
    assert response.json()["errors"][0]["errorCode"] == "ACCESS_TOKEN_ALREADY_USED"
    assert [request.body for request in wire.sent] == [b"once"]


def test_a_streamed_request_is_tried_again_and_still_streams(session: requests.Session, wire: Wire) -> None:
    wire.script = [SPENT, reply(200, b"abc")]
    response = session.get(ME, stream=True)
    assert response.raw.read() == b"abc"
    assert [options["stream"] for options in wire.options] == [True, True]


def test_a_streamed_401_that_is_not_tried_again_can_still_be_read(session: requests.Session, wire: Wire) -> None:
    wire.script = [unauthorized("OTHER")]
    response = session.get(ME, stream=True)
    assert b"".join(response.iter_content(8)) == b'{"errors": [{"errorCode": "OTHER"}]}'


@pytest.mark.parametrize("length", ["", "99999999", "-1", "１"])
def test_a_streamed_401_of_unknown_or_great_length_is_left_unread(
    session: requests.Session, wire: Wire, length: str
) -> None:
    wire.script = [unauthorized("ACCESS_TOKEN_EXPIRED", Content_Length=length)]
    response = session.get(ME, stream=True)
    assert response.status_code == 401
    assert response.raw.read()
    assert len(wire.sent) == 1


def test_hooks_of_the_callers_own_see_the_last_answer_once(session: requests.Session, wire: Wire) -> None:
    seen: list[int] = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
    wire.script = [SPENT]
    session.get(ME, hooks={"response": lambda response, **_: seen.append(-response.status_code)})
    session.get(ME)
    assert seen == [-200, 200]


def test_the_second_try_is_sent_like_the_first(session: requests.Session, wire: Wire) -> None:
    wire.script = [SPENT]
    session.get(ME, timeout=(1, 2), verify="ca.pem")
    first, second = wire.options
    assert first == second
    assert (second["timeout"], second["verify"]) == ((1, 2), "ca.pem")


def test_no_token_for_a_second_try_is_told_and_the_connection_freed(
    session: requests.Session, wire: Wire, source: CountingSource
) -> None:
    def spent(_: Any) -> tuple[int, dict[str, str], bytes]:
        source.before = failing("over_budget", status=429)
        return SPENT(_)

    wire.script = [spent]
    with pytest.raises(VendingFailed, match="over_budget"):
        session.get(ME)
    assert wire.raws[0].closed


def test_a_prepared_request_that_is_sent_twice_is_sent_with_two_tokens(session: requests.Session, wire: Wire) -> None:
    prepared = session.prepare_request(requests.Request("GET", ME))
    wire.script = [reply(), SPENT, reply()]
    assert [session.send(prepared).status_code for _ in range(2)] == [200, 200]
    assert wire.tokens == ["token-1", "token-1", "token-2"]


# The session that knows its base URL


def test_a_path_is_meant_for_the_credentials_own_host(wire: Wire, source: CountingSource) -> None:
    with VendedSession(CREDENTIAL, source) as session:
        wire.mount(session)
        assert session.get("/v1/identity/me", params={"a": "b"}).status_code == 200
        session.post(ME)
    assert [request.url for request in wire.sent] == [ME + "?a=b", ME]
    assert wire.tokens == ["token-1", "token-2"]
    assert len(source.asked) == 2  # finding out the host costs no token


def test_the_sessions_requests_have_a_time_out_unless_they_bring_their_own(wire: Wire, source: CountingSource) -> None:
    with VendedSession(CREDENTIAL, source, timeout_seconds=7) as session:
        wire.mount(session)
        session.get("/v1")
        session.get("/v1", timeout=1)
    assert [options["timeout"] for options in wire.options] == [7, 1]


@pytest.mark.parametrize("path", ["//elsewhere.test/v1", "/@elsewhere.test/v1", "/\\elsewhere.test/v1"])
def test_no_path_leads_the_session_elsewhere(wire: Wire, source: CountingSource, path: str) -> None:
    with VendedSession(CREDENTIAL, source) as session:
        wire.mount(session)
        session.get(path)
    assert wire.sent[0].url.startswith(BASE_URL + "/")


@pytest.mark.parametrize("credential", ["tenant-a", "sandbox/", "sandbox/../x", "sandbox/a/b", ""])
def test_a_credential_that_is_no_id_is_refused_at_once(credential: str) -> None:
    with pytest.raises(ValueError, match="credential"):
        VendedAuth(credential)


# Copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda session: pickle.loads(pickle.dumps(session))])
def test_a_copied_session_sends_tokens_of_its_own(copied: Callable[[VendedSession], VendedSession]) -> None:
    source = CountingSource()
    with mock.patch.object(sources, "source_from_env", return_value=source):
        first = VendedSession(CREDENTIAL, ahead=3, timeout_seconds=7)
        wire = Wire()
        first.mount(BASE_URL, wire)
        first.get("/v1")
        first.mount(BASE_URL, HTTPAdapter())  # a wire is none that can be pickled
        second = copied(first)
        for session in (first, second):
            session.mount(BASE_URL, wire)
            session.get("/v1")
            session.get("/v1")
    assert len(set(wire.tokens)) == 5


def test_a_source_that_was_given_goes_into_a_deep_copy_without_its_connections() -> None:
    source = ApiSource("https://vending.test", region="eu-west-1")
    source._http.get()
    copied = copy.deepcopy(VendedAuth(CREDENTIAL, source))
    assert isinstance(copied._supply._own_source, ApiSource)
    assert not copied._supply._own_source._http._made
