"""`imburse-vending whoami`, and the door that it and the others ask at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from imburse_auth.client import ApiSource, InvokeSource, VendingFailed
from imburse_vending import door, imburse_call, whoami
from imburse_vending.common import CommandError, ExitCode, Place
from imburse_vending.imburse_call import Reply
from imburse_vending.whoami import asked_as
from tests.cli_run import FakeSource, run, vended

ENVIRON = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "CANARY-aws", "AWS_DEFAULT_REGION": "eu-west-1"}
API = "https://vending.test/sandbox"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:imburse-vending-vend"
IDENTITY = {
    "credential": "sandbox/tenant-a",
    "accounts": [{"accountId": "a-1"}],
    "tenants": [{"tenantId": "t-1", "n": 1}],
}


@pytest.fixture(autouse=True)
def shell() -> Iterator[None]:
    with (
        mock.patch.dict("os.environ", {**ENVIRON, "VENDING_API": API}),
        mock.patch.object(whoami, "asked_as", return_value="arn:aws:sts::123456789012:assumed-role/orders/me"),
    ):
        yield


def place(**variables: str) -> Place:
    return Place({**ENVIRON, **variables})


def test_it_tells_what_the_credential_reaches() -> None:
    with mock.patch.object(ApiSource, "identity", return_value=IDENTITY):
        shown = run("whoami", "sandbox/tenant-a")
        document = json.loads(run("whoami", "sandbox/tenant-a", "--json").out)
    assert shown.code == 0
    assert "assumed-role/orders/me" in shown.out
    assert "accountId a-1" in shown.out
    assert document["tenants"] == IDENTITY["tenants"]


def test_who_may_vend_and_not_inspect_is_told_of_a_way() -> None:
    with mock.patch.object(ApiSource, "identity", side_effect=VendingFailed("not_authorized", "no", status=403)):
        done = run("whoami", "sandbox/tenant-a")
    assert (done.code, "--vend" in done.err) == (3, True)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (json.dumps({"accounts": [], "tenants": []}).encode(), 200, 0),
        (b"{}", 200, 1),
        (b"no json", 200, 1),
        (b"{}", 401, 1),
    ],
)
def test_with_a_token_of_its_own_it_asks_imburse(body: bytes, status: int, code: int) -> None:
    reply = Reply(status, "", {}, body, 0.1)
    with (
        mock.patch.object(door, "source_of", return_value=FakeSource([[vended()]])),
        mock.patch.object(imburse_call, "send", return_value=reply) as send,
    ):
        assert run("whoami", "sandbox/tenant-a", "--vend").code == code
    assert send.call_args.args[1:] == ("GET", "/v1/identity/me")


def test_a_role_may_prove_itself_to_a_function_to_see_what_a_credential_reaches() -> None:
    with (
        mock.patch.object(door, "source_of", return_value=FakeSource()) as source_of,
        mock.patch.object(
            imburse_call, "send", return_value=Reply(200, "", {}, b'{"accounts": [], "tenants": []}', 0.1)
        ),
    ):
        run("whoami", "sandbox/tenant-a", "--vend", "--function", f"{FUNCTION}:live", "--prove")
    assert source_of.call_args.args[2] == f"{FUNCTION}:live"
    assert source_of.call_args.kwargs == {"prove": True}


def test_without_a_local_stack_something_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("whoami", "--local")
    assert (done.code, "make serve" in done.err) == (2, True)


def test_a_region_may_be_in_aws_region_as_for_the_aws_cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert Place.of().session().region_name == "eu-north-1"
    assert Place.of(region="eu-west-3").session().region_name == "eu-west-3"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert Place.of().session().region_name == "eu-west-1"


def test_a_function_cannot_be_asked_for_an_identity() -> None:
    done = run("whoami", "sandbox/tenant-a", "--function", "vend:job")
    assert (done.code, "--vend" in done.err) == (2, True)


def test_an_api_wins_over_a_function_and_what_is_named_over_a_variable() -> None:
    both = {"VENDING_API": API, "VENDING_FUNCTION": f"{FUNCTION}:job"}
    assert isinstance(door.source_of(place(**both), None, None), ApiSource)
    assert isinstance(door.source_of(place(**both), None, "vend:job"), InvokeSource)
    assert isinstance(door.source_of(place(VENDING_FUNCTION="vend:job"), None, None), InvokeSource)


@pytest.mark.parametrize(
    ("api", "function", "prove", "says"),
    [
        (None, None, False, "which vending machine"),
        (API, "vend:job", False, "exclude"),
        ("http://vending.test", None, False, "https"),
        ("https://user:pw@vending.test", None, False, "without user"),  # pragma: allowlist secret (invented)
        (None, "vend", False, "without an alias"),
        (None, FUNCTION, False, "without an alias"),
        (None, "vend:job", True, "ARN"),
        (API, None, True, "--prove is for --function"),
    ],
)
def test_a_door_that_is_none_is_called_wrongly(api: str | None, function: str | None, prove: bool, says: str) -> None:
    with pytest.raises(CommandError, match=says) as caught:
        door.source_of(place(), api, function, prove=prove)
    assert caught.value.code == ExitCode.USAGE


def test_a_proof_is_bound_to_the_function_and_made_for_each_invoke() -> None:
    invoked: list[dict[str, Any]] = []

    def invoke(self: InvokeSource, event: dict[str, Any]) -> Any:
        assert self._proof is not None
        invoked.append({**event, "proof": self._proof()})
        raise VendingFailed("not_authorized", "no", status=403)

    source = door.source_of(place(), None, f"{FUNCTION}:job", prove=True)
    with mock.patch.object(InvokeSource, "_once", invoke), pytest.raises(VendingFailed):
        source.tokens("sandbox/tenant-a")
    proof = invoked[0]["proof"]
    assert proof["accessKeyId"] == "AKIDTEST"
    assert "CANARY" not in json.dumps(proof)


def test_the_local_stack_is_never_taken_for_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".local").mkdir()
    lines = "".join(f"export {name}={value}\n" for name, value in ENVIRON.items())
    (tmp_path / ".local/env").write_text(lines)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="the local stack has no sts"):
        Place.of(local=True).client("sts")
    with pytest.raises(CommandError, match="exclude"):
        Place.of(local=True, profile="x")


@pytest.mark.parametrize(
    ("arn", "caller"),
    [
        ("arn:aws:sts::123456789012:assumed-role/orders/me", "arn:aws:iam::123456789012:role/orders"),
        ("arn:aws:iam::123456789012:user/x", "arn:aws:iam::123456789012:user/x"),
        ("nonsense", None),
    ],
)
def test_the_caller_is_named_as_rules_name_it(arn: str, caller: str | None) -> None:
    assert door.caller_id(arn) == caller


def test_where_sts_cannot_be_asked_the_access_key_id_says_who() -> None:
    for failure in (EndpointConnectionError(endpoint_url="x"), ClientError({"Error": {"Code": "AccessDenied"}}, "Get")):
        with mock.patch.object(Place, "client", side_effect=failure):
            assert asked_as(Place.of()) == "access key AKIDTEST"


def test_without_aws_credentials_nobody_asks() -> None:
    with (
        mock.patch.dict("os.environ", {"AWS_EC2_METADATA_DISABLED": "true"}),
        mock.patch.dict("os.environ", dict.fromkeys(ENVIRON, "")),
        pytest.raises(CommandError, match="no AWS credentials"),
    ):
        asked_as(Place.of())


def test_a_stack_that_somebody_else_left_in_a_folder_above_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key that is put there would go to them."""
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local/env").write_text("export AWS_ACCESS_KEY_ID=theirs\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert Place.of(local=True).environ == {"AWS_ACCESS_KEY_ID": "theirs"}
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(CommandError, match="somebody else"):
        Place.of(local=True)
