"""`imburse-vending token`: a token only where it was asked to go, quoted by the rules of whoever reads it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from imburse_auth.client import VendingFailed
from imburse_vending import door
from imburse_vending.common import CommandError
from imburse_vending.token_forms import Form, written
from tests.cli_run import FakeSource, run, vended

HOSTILE = """a'b"c\\d $(touch pwned) `id`; x"""


@pytest.fixture
def source() -> Iterator[FakeSource]:
    fake = FakeSource()
    with mock.patch.object(door, "source_of", return_value=fake):
        yield fake


def test_headers_are_lines_that_a_client_can_send(source: FakeSource) -> None:
    done = run("token", "sandbox/tenant-a")
    assert done.out == "Authorization: Bearer token-1\nx-account-id: account-1\nx-tenant-id: tenant-1\n"
    assert (done.code, done.err) == (0, "")
    assert source.asked == [("sandbox/tenant-a", 1, 300)]


def test_json_holds_all_of_it_and_a_count_makes_a_list(source: FakeSource) -> None:
    source.outcomes = [[vended()], [vended("t-1"), vended("t-2")]]
    assert json.loads(run("token", "sandbox/tenant-a", "--json").out)["accessToken"] == "token-1"
    done = run("token", "sandbox/tenant-a", "--count", "2", "--as", "json", "--lifetime", "600")
    assert [one["headers"]["Authorization"] for one in json.loads(done.out)] == ["Bearer t-1", "Bearer t-2"]
    assert source.asked[1] == ("sandbox/tenant-a", 2, 600)


def test_an_account_id_cannot_become_a_command_in_the_shell_that_evaluates_the_exports(tmp_path: Path) -> None:
    script = written([vended(account=HOSTILE)], Form.EXPORT, many=False)
    shell = subprocess.run(
        ["sh", "-c", script + 'printf %s "$IMBURSE_ACCOUNT_ID"'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == HOSTILE
    assert not list(tmp_path.iterdir())


def test_exports_say_where_to_and_until_when() -> None:
    lines = written([vended()], Form.EXPORT, many=False).splitlines()
    assert lines == [
        "export IMBURSE_AUTHORIZATION='Bearer token-1'",
        "export IMBURSE_ACCOUNT_ID=account-1",
        "export IMBURSE_TENANT_ID=tenant-1",
        "export IMBURSE_BASE_URL=https://api.imburse.test",
        "export IMBURSE_EXPIRES=2000000000",
    ]


def test_an_account_id_cannot_end_a_quote_in_curls_configuration() -> None:
    lines = written([vended(account='a" \\')], Form.CURL, many=False).splitlines()
    assert lines[1] == r'header = "x-account-id: a\" \\"'
    assert len(lines) == 3


@pytest.mark.parametrize("value", ["a\nb: c", "a\rb", "a\x00", "a\x1b[2J", "", "é"])
@pytest.mark.parametrize("form", list(Form))
def test_a_header_that_would_be_two_is_not_printed_in_any_form(form: Form, value: str) -> None:
    with pytest.raises(CommandError, match="cannot be sent"):
        written([vended(account=value)], form, many=False)


@pytest.mark.parametrize("form", ["curl", "export"])
def test_forms_of_one_request_take_no_more_than_one_token_and_vend_none_to_find_out(
    source: FakeSource, form: str
) -> None:
    done = run("token", "sandbox/tenant-a", "--count", "2", "--as", form)
    assert (done.code, source.asked) == (2, [])


def test_a_terminal_is_told_that_it_keeps_the_token_and_a_pipe_is_not(source: FakeSource) -> None:
    source.outcomes = [[vended()], [vended()]]
    assert "scroll-back" in run("token", "sandbox/tenant-a", terminal=True).err
    assert run("token", "sandbox/tenant-a").err == ""


def test_a_terminal_sees_what_is_waited_for_and_a_pipe_does_not(source: FakeSource) -> None:
    source.outcomes = [[vended()] * 5, [vended()]]
    assert "vending 5" in run("token", "sandbox/tenant-a", "--count", "5", "--as", "json", terminal=True).err
    assert run("token", "sandbox/tenant-a").err == ""


def test_fewer_than_asked_for_are_printed_and_the_exit_code_says_so(source: FakeSource) -> None:
    done = run("token", "sandbox/tenant-a", "--count", "3", "--as", "json")
    assert len(json.loads(done.out)) == 1
    assert (done.code, "3 were asked for, 1 came" in done.err) == (4, True)


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (VendingFailed("not_authorized", "no", status=403, request_id="req-1"), 3, "request id req-1"),
        (VendingFailed("refused_by_aws", "IAM does not let this role", status=403), 3, "doctor"),
        (
            VendingFailed("over_budget", "spent", status=429, retryable=True, retry_after_seconds=7),
            4,
            "try again in 7 s",
        ),
        (VendingFailed("unreachable", "no answer", retryable=True), 4, "try again"),
        (VendingFailed("credential_not_found", "there is none", status=404), 1, "store its key"),
        (
            VendingFailed("upstream_rejected", "refused", status=502, upstream={"status": 401, "errorCode": "X"}),
            1,
            "Imburse: status 401, errorCode X",
        ),
        (VendingFailed("a_code_of_tomorrow", "something new"), 1, "something new"),
    ],
)
def test_a_refusal_has_its_exit_code_and_a_next_step(
    source: FakeSource, failure: VendingFailed, code: int, says: str
) -> None:
    source.outcomes = [failure]
    done = run("token", "sandbox/tenant-a")
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert failure.code in done.err


def test_with_json_a_failure_is_json_too(source: FakeSource) -> None:
    source.outcomes = [VendingFailed("not_authorized", "no", status=403)]
    document = json.loads(run("token", "sandbox/tenant-a", "--json").out)
    assert document["error"] == "not_authorized: no"
    assert document["next"]


@pytest.mark.parametrize("credential", ["tenant-a", "sandbox/../x", "a/b/c", "sandbox/tenant-a?x", ""])
def test_what_is_no_credential_is_called_wrongly(source: FakeSource, credential: str) -> None:
    assert run("token", credential).code == 2
    assert source.asked == []
