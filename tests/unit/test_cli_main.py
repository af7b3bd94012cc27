"""`imburse-vending` as a whole: quick help with examples, and no secret in what it says when things go wrong."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import pytest
import typer
from botocore.exceptions import ClientError, ConnectTimeoutError
from typer.testing import CliRunner

from imburse_auth.client import VendingFailed
from imburse_vending import door
from imburse_vending.common import CommandError
from imburse_vending.main import app
from tests.cli_run import FakeSource, run, vended

COMMANDS = ["token", "whoami", "call", "doctor", "sign", "check", "when"]
CANARY = "CANARY-eyJhbGciOi"


def test_help_costs_no_aws_sdk_no_http_library_and_no_policy_engine() -> None:
    script = (
        "import sys; from imburse_vending.main import app; app(['--help'], standalone_mode=False);"
        "print([m for m in ('boto3', 'botocore', 'requests', 'cedarpy', 'urllib3', 'imburse_auth.client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=120)
    assert shown.exit_code == 0
    assert "Examples" in shown.output
    assert f"imburse-vending {command}" in shown.output


def test_the_exit_codes_are_in_the_help() -> None:
    assert "Exit codes: 0 done" in CliRunner().invoke(app, ["--help"], terminal_width=120).output


@pytest.mark.parametrize("command", ["token", "call", "whoami", "doctor", "sign", "check"])
def test_no_option_takes_a_token_or_a_key(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=200).output
    assert not any(option in shown for option in ("--private-key", "--token", "--secret-key", "--access-token"))


def test_a_colour_is_for_terminals_that_want_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" not in run("when", "1614350382").out
    assert "\x1b[" in run("when", "1614350382", terminal=True).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in run("check", "nonsense", terminal=True).out


def bug() -> Exception:
    return ValueError(f"cannot read {CANARY}")


def aws(code: str, status: int) -> Callable[[], Exception]:
    def make() -> Exception:
        metadata = {"HTTPStatusCode": status}
        error = {"Error": {"Code": code, "Message": CANARY}, "ResponseMetadata": metadata}
        return ClientError(error, "Invoke")  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (bug, 1, "a bug: ValueError at"),
        (aws("AccessDeniedException", 403), 3, "AWS refuses Invoke: AccessDeniedException"),
        (aws("ThrottlingException", 429), 4, "ThrottlingException"),
        (aws("InternalFailure", 500), 4, "InternalFailure"),
        (lambda: ConnectTimeoutError(endpoint_url=CANARY), 4, "ConnectTimeoutError"),
        (lambda: VendingFailed("upstream_rejected", "refused", upstream={"status": 401}), 1, "upstream_rejected"),
    ],
)
@pytest.mark.parametrize("command", [["token"], ["call", "GET", "/v1/x"], ["whoami", "--vend"]])
def test_no_failure_shows_what_it_was_about(
    command: list[str], make: Callable[[], Exception], code: int, says: str
) -> None:
    head, *rest = command
    for json_too in ([], ["--json"]):
        source = FakeSource([make()])
        with (
            mock.patch.object(door, "source_of", return_value=source),
            mock.patch("imburse_vending.whoami.asked_as", return_value="me"),
        ):
            done = run(head, *rest, "sandbox/tenant-a", *json_too)
        assert (done.code, says in done.text) == (code, True)
        assert "CANARY" not in done.text
        assert "Traceback" not in done.text


@pytest.mark.parametrize("failing", ["written", "checked_headers"])
def test_a_bug_after_the_vend_does_not_print_the_token(failing: str) -> None:
    where = {
        "written": "imburse_vending.get_token.written",
        "checked_headers": "imburse_vending.token_forms.checked_headers",
    }
    with (
        mock.patch.object(door, "source_of", return_value=FakeSource([[vended(CANARY)]])),
        mock.patch(where[failing], side_effect=KeyError(CANARY)),
    ):
        done = run("token", "sandbox/tenant-a")
    assert (done.code, "CANARY" in done.text) == (1, False)


@pytest.mark.parametrize("command", [["sign", "--key-file", "-"], ["check", "Hmac a:b:1:c", "--key-file", "-"]])
@pytest.mark.parametrize("where", ["publicKey", "privateKey", "text"])
def test_no_key_that_cannot_be_used_is_repeated(command: list[str], where: str) -> None:
    members = {"publicKey": "p", "privateKey": "AAAA", where: CANARY + ": é"}
    content = CANARY.encode() if where == "text" else json.dumps(members).encode()
    done = run(*command, stdin=content)
    assert done.code == 1
    assert "CANARY" not in done.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["token"], "CREDENTIAL"),
        (["token", "tenant-a"], "<environment>/<name>"),
        (["token", "sandbox/tenant-a", "--count", "0"], "--count"),
        (["call", "GET", "/v1", "sandbox/tenant-a", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
def test_with_json_a_wrong_call_is_told_in_json_too(arguments: list[str], says: str) -> None:
    done = run(*arguments, "--json")
    assert (done.code, done.err) == (2, "")
    document = json.loads(done.out)
    assert says in document["error"]
    assert document["next"].endswith("--help")


def test_with_json_the_exit_codes_are_the_same() -> None:
    assert run("check", "nonsense", "--json").code == 1
    assert run("when", "1614350382", "--json").code == 0
    with mock.patch("imburse_vending.when.read", side_effect=typer.Abort):
        assert (run("when", "--json").code, run("when").code) == (1, 1)


def test_a_disk_that_is_full_is_no_bug() -> None:
    with (
        mock.patch.object(door, "source_of", return_value=FakeSource()),
        mock.patch("imburse_vending.get_token.written", side_effect=OSError(errno.ENOSPC, "No space left on device")),
    ):
        done = run("token", "sandbox/tenant-a")
    assert (done.code, done.err) == (1, "error: this machine does not do it: No space left on device\n")


@pytest.mark.parametrize("command", ["when", "whoami", "doctor"])
def test_what_may_be_left_out_is_in_one_pair_of_brackets(command: str) -> None:
    usage = CliRunner().invoke(app, [command, "--help"], terminal_width=120).output
    assert "[[" not in usage


def test_what_is_wrong_and_what_to_do_next_cannot_steer_the_terminal() -> None:
    steering = "\x1b]0;owned\x07\x1b[2J\u202e"
    trouble = CommandError(f"problem {steering}", next_step=f"step {steering}")
    with mock.patch.object(door, "source_of", side_effect=trouble):
        done = run("token", "sandbox/tenant-a", terminal=True)
    assert done.code == 1
    assert "problem" in done.err
    assert "step" in done.err
    assert not set(steering) & set(done.err) & {"\x07", "\u202e"}
    assert "\x1b]" not in done.err
    assert "\x1b[2J" not in done.err
