"""`put-key` on moto: what is stored, what is not, and that no private key is seen on any of its paths."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import typer
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws
from moto.backends import get_backend
from typer.testing import CliRunner, Result

from imburse_auth import transport
from imburse_auth.api_key import ApiKey
from imburse_vending.common import CommandError, ExitCode, Place
from imburse_vending.main import main
from imburse_vending.put_key import put_key
from tests.fakes import BASE_URL, FakeImburse, aws_error, private_key, secret

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

NAME, SECRET_NAME = "sandbox/tenant-a", "imburse/sandbox/tenant-a"
OLD = secret(name="orders", roles=["tenant-admin"], poolMin=3, poolMax=9, managedBy="sandbox/admin", note="kept")


app = typer.Typer(pretty_exceptions_enable=False)  # the command alone: all of them together take 0.1 s to put up
app.callback()(lambda: None)
app.command()(put_key)


@dataclass
class House:
    """moto, a fake Imburse behind put-key's transport, and the vend function's settings."""

    secrets: SecretsManagerClient
    imburse: FakeImburse
    tmp_path: Path
    hosts: str | Exception = f"sandbox={BASE_URL}"
    asked: list[str] = field(default_factory=list)

    def get_function_configuration(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        self.asked.append(FunctionName)
        if isinstance(self.hosts, Exception):
            raise self.hosts
        return {"Environment": {"Variables": {"IMBURSE_HOSTS": self.hosts}}}

    def file(self, members: object, mode: int = 0o600) -> str:
        path = self.tmp_path / "tenant-a.secret.json"
        path.write_text(members if isinstance(members, str) else json.dumps(members))
        path.chmod(mode)
        return str(path)

    def put(self, members: object, *options: str, name: str = NAME) -> Result:
        return CliRunner().invoke(app, ["put-key", name, "--from-file", self.file(members), *options])

    def refused(self, members: object, *options: str, name: str = NAME) -> CommandError:
        before = self.versions()
        result = self.put(members, *options, name=name)
        assert isinstance(result.exception, CommandError), result.output
        assert self.versions() == before, "something was stored"
        return result.exception

    def stored(self, stage: str = "AWSCURRENT", name: str = SECRET_NAME) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(
            self.secrets.get_secret_value(SecretId=name, VersionStage=stage)["SecretString"]
        )
        return members

    def versions(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in self.secrets.list_secrets()["SecretList"]:
            found |= self.secrets.describe_secret(SecretId=one["Name"])["VersionIdsToStages"]
        return found


@pytest.fixture(scope="module")
def moto() -> Iterator[SecretsManagerClient]:
    """One for all the tests here: to make a client takes longer than to run one of them."""
    with mock_aws():
        yield boto3.client("secretsmanager", "eu-west-1", aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.fixture
def house(moto: SecretsManagerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> House:
    get_backend("secretsmanager").reset()
    one = House(moto, FakeImburse(time.time), tmp_path)
    monkeypatch.setattr(transport, "Transport", one.imburse.transport)
    monkeypatch.setattr(Place, "client", lambda _, service: {"lambda": one, "secretsmanager": moto}[service])
    monkeypatch.setattr("imburse_auth.retry.BACKOFF_BASE_SECONDS", 0.0)
    monkeypatch.delenv("VENDING_FUNCTION", raising=False)
    moto.create_secret(Name=SECRET_NAME, SecretString=json.dumps(OLD))
    one.imburse.accept(OLD)
    return one


def pair(house: House, **changes: Any) -> dict[str, Any]:
    """A pair that Imburse takes."""
    members = secret(**{"accountId": None, "tenantId": None, **changes})
    house.imburse.accept(members)
    return members


# What is stored


def test_a_pair_that_imburse_takes_is_the_current_version_and_the_rest_is_kept(house: House) -> None:
    new = pair(house)
    result = house.put(new)
    assert result.exit_code == 0, result.output
    stored = house.stored()
    assert ApiKey.from_secret(json.dumps(stored)).created_at is not None
    assert stored.pop("createdAt")[-1] == "Z"
    assert stored == OLD | new
    assert house.stored("AWSPREVIOUS") == OLD
    assert house.asked == ["imburse-vending-sandbox-vend"]
    assert new["publicKey"] in result.output
    assert OLD["publicKey"] in result.output


def test_the_same_file_again_is_harmless_and_says_so(house: House) -> None:
    new = pair(house)
    house.put(new)
    before = house.versions()
    again = house.put(new, "--json")
    assert (again.exit_code, json.loads(again.stdout)["stored"]) == (0, False)
    assert "has this pair already" in house.put(new).output
    assert house.versions() == before
    assert house.stored("AWSPREVIOUS") == OLD


def test_the_current_pair_is_checked_too(house: House) -> None:
    house.imburse.keys.clear()
    assert "does not accept" in house.refused(OLD).problem


def test_a_new_credential_is_made_of_the_whole_file(house: House) -> None:
    new = pair(house, accountId="account-1", tenantId="tenant-a", poolMax=5)
    assert house.put(new, name="sandbox/new").exit_code == 0
    stored = house.stored(name="imburse/sandbox/new")
    assert {name: stored[name] for name in new} == new
    assert "createdAt" in stored
    assert house.secrets.describe_secret(SecretId="imburse/sandbox/new")["KmsKeyId"] == "alias/imburse-vending-sandbox"


@pytest.mark.parametrize(
    ("options", "variables", "kms", "function"),
    [
        (["--kms-key-id", "alias/own"], {}, "alias/own", "imburse-vending-sandbox-vend"),
        (["--stack", "tokens"], {}, "alias/tokens", "tokens-vend"),
        ([], {"VENDING_FUNCTION": "arn:aws:lambda:eu-west-1:123456789012:function:x-vend:job"}, "alias/x", "x-vend"),
        ([], {"VENDING_FUNCTION": "something-else"}, "alias/imburse-vending-sandbox", "imburse-vending-sandbox-vend"),
    ],
)
def test_which_stack_is_meant(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    variables: dict[str, str],
    kms: str,
    function: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (
        house.put(pair(house, accountId="account-1", tenantId="tenant-a"), *options, name="sandbox/new").exit_code == 0
    )
    assert house.secrets.describe_secret(SecretId="imburse/sandbox/new")["KmsKeyId"] == kms
    assert house.asked == [function]


def test_a_secret_without_a_value_is_filled(house: House) -> None:
    house.secrets.create_secret(Name="imburse/sandbox/new")
    assert house.put(pair(house, accountId="account-1", tenantId="tenant-a"), name="sandbox/new").exit_code == 0
    assert house.stored(name="imburse/sandbox/new")["tenantId"] == "tenant-a"


def test_an_accounts_key_needs_no_tenant(house: House) -> None:
    assert house.put(pair(house, accountId="account-1"), name="sandbox/admin").exit_code == 0


def test_a_base_url_that_is_named_is_asked_and_no_function(house: House) -> None:
    assert house.put(pair(house), "--base-url", BASE_URL).exit_code == 0
    assert house.asked == []


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_can_read_is_warned_of(house: House, mode: int, warned: bool) -> None:
    path = house.file(pair(house), mode)
    result = CliRunner().invoke(app, ["put-key", NAME, "--from-file", path])
    assert result.exit_code == 0
    assert ("chmod 600" in result.stderr) is warned


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answers: dict[str, str]) -> list[tuple[str, bool]]:
    asked: list[tuple[str, bool]] = []

    def prompt(text: str, *, hide_input: bool = False, err: bool, **_: object) -> str:
        assert err, "a prompt must not stand in what a program reads"
        asked.append((text, hide_input))
        return f" {answers.pop(text.split(' (')[0])} "

    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.setattr("imburse_vending.put_key.at_terminal", lambda: True)
    return asked


def test_the_prompt_hides_the_private_key_and_asks_for_nothing_known(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = pair(house)
    asked = at_a_terminal(monkeypatch, {"public key": new["publicKey"], "private key": new["privateKey"]})
    assert CliRunner().invoke(app, ["put-key", NAME]).exit_code == 0
    assert asked == [("public key", False), ("private key (not shown)", True)]
    assert house.stored()["privateKey"] == new["privateKey"]


@pytest.mark.parametrize("tenant", ["tenant-a", ""])
def test_the_prompt_asks_whose_a_new_credential_is(house: House, monkeypatch: pytest.MonkeyPatch, tenant: str) -> None:
    new = pair(house)
    answers = {
        "public key": new["publicKey"],
        "private key": new["privateKey"],
        "account id": "account-1",
        "tenant id": tenant,
    }
    at_a_terminal(monkeypatch, answers)
    assert CliRunner().invoke(app, ["put-key", "sandbox/new"]).exit_code == 0
    assert house.stored(name="imburse/sandbox/new").get("tenantId") == (tenant or None)


# What is not


def test_a_refused_pair_is_not_stored(house: House) -> None:
    error = house.refused(secret(accountId=None, tenantId=None))
    assert "Imburse does not accept this pair (status 401, errorCode HMAC_REFUSED" in error.problem
    assert "nothing was stored" in error.problem


def test_a_public_key_with_anothers_private_key_is_not_stored(house: House) -> None:
    new = pair(house)
    house.refused(new | {"privateKey": private_key()})


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"accounts": [{"accountId": "account-1"}], "tenants": [{"tenantId": "tenant-b"}]}, "tenantId"),
        ({"accounts": [{"accountId": "account-2"}], "tenants": [{"tenantId": "tenant-a"}]}, "accountId"),
        ({"accounts": [], "tenants": []}, "accountId"),
        ({"accounts": [7, None], "tenants": ["tenant-a"]}, "accountId"),
    ],
)
def test_a_pair_for_which_imburse_names_another_is_not_stored(house: House, answer: dict[str, Any], named: str) -> None:
    new = pair(house)
    house.imburse.script = [house.imburse.obey, lambda _: house.imburse.answer(answer)]
    assert house.refused(new).problem.startswith(f"{named}: Imburse does not name it")


@pytest.mark.parametrize(
    "answer", [["account-1", "tenant-a"], [{"accountId": "account-1", "tenants": [{"id": "tenant-a"}]}]]
)
def test_the_vendors_own_shape_may_be_another(house: House, answer: Any) -> None:
    new = pair(house)
    house.imburse.script = [house.imburse.obey, lambda _: house.imburse.answer({"accounts": answer})]
    assert house.put(new).exit_code == 0


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (lambda imburse: imburse.refuse(503), ExitCode.TRY_LATER),
        (lambda imburse: imburse.refuse(429), ExitCode.TRY_LATER),
        (lambda imburse: imburse.answer(b"<html>"), ExitCode.FAILED),
        (lambda imburse: imburse.refuse(403, "ROLE_LACKS"), ExitCode.FAILED),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_an_imburse_that_fails_stores_nothing(
    house: House, behaviour: Callable[[FakeImburse], Any], code: ExitCode, at: int
) -> None:
    new = pair(house)
    house.imburse.script = [house.imburse.obey] * at
    house.imburse.always = lambda _: behaviour(house.imburse)
    assert house.refused(new).code == code


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tenantId": "tenant-b"}, "tenantId: the secret has another one"),
        ({"accountId": "account-2"}, "accountId: the secret has another one"),
        ({"poolMin": 4}, "poolMin: differs"),
        ({"baseUrl": "https://elsewhere.test"}, "baseUrl: differs"),
        ({"privateKey": "not base64!"}, "privateKey: must be base64"),
        ({"privateKey": 7}, "privateKey: must be base64"),
        ({"publicKey": "a:b"}, "publicKey: must not contain a colon"),
    ],
)
def test_a_file_that_says_otherwise_than_the_secret_is_refused(
    house: House, change: dict[str, Any], problem: str
) -> None:
    assert house.refused(pair(house) | change).problem.startswith(problem)


def test_a_new_credential_needs_its_account(house: House) -> None:
    assert "accountId is needed" in house.refused(pair(house), name="sandbox/new").problem


@pytest.mark.parametrize("text", ["", "{", "[]", '{"publicKey": "a"}', '{"privateKey": "a"}', "\x00"])
def test_a_file_that_holds_no_pair_is_refused(house: House, text: str) -> None:
    assert house.refused(text).code == ExitCode.USAGE


def test_without_a_file_and_a_terminal_it_does_not_wait(house: House) -> None:
    result = CliRunner().invoke(app, ["put-key", NAME], input="a\nb\n")
    assert isinstance(result.exception, CommandError)
    assert result.exception.code == ExitCode.USAGE


def test_a_file_that_is_not_there_is_named(house: House) -> None:
    result = CliRunner().invoke(app, ["put-key", NAME, "--from-file", str(house.tmp_path / "none.json")])
    assert isinstance(result.exception, CommandError)
    assert "none.json" in result.exception.problem


@pytest.mark.parametrize(
    ("hosts", "code"),
    [
        (aws_error("AccessDeniedException", 403), ExitCode.REFUSED),
        (aws_error("ResourceNotFoundException", 404), ExitCode.FAILED),
        ("", ExitCode.USAGE),
        ("sandbox=http://elsewhere.test", ExitCode.USAGE),
        ("production=https://api.imburse.test", ExitCode.FAILED),
    ],
    ids=str,
)
def test_where_imburse_is_must_be_known(house: House, hosts: Any, code: ExitCode) -> None:
    house.hosts = hosts
    assert house.refused(pair(house)).code == code
    assert house.imburse.requests == []


def test_a_host_that_the_functions_may_not_speak_to_is_refused(house: House) -> None:
    new = pair(house, accountId="account-1", baseUrl="https://elsewhere.test")
    assert "baseUrl: is not a host" in house.refused(new, name="sandbox/new").problem
    assert house.imburse.requests == []


@pytest.mark.parametrize("text", ["a password", "[]", None])
def test_a_secret_whose_other_members_cannot_be_kept_is_left_alone(house: House, text: str | None) -> None:
    if text is None:
        house.secrets.put_secret_value(SecretId=SECRET_NAME, SecretBinary=b"\x00")
    else:
        house.secrets.put_secret_value(SecretId=SECRET_NAME, SecretString=text)
    assert "is not a JSON object" in house.refused(pair(house)).problem


def test_a_secret_that_is_marked_for_deletion_is_left_alone(house: House) -> None:
    house.secrets.delete_secret(SecretId=SECRET_NAME)
    result = house.put(pair(house))
    assert isinstance(result.exception, CommandError)
    assert "restore-secret" in (result.exception.next_step or "")


def test_a_secret_that_changed_while_imburse_was_asked_is_not_overwritten(house: House) -> None:
    new = pair(house)

    def meanwhile(request: Any) -> Any:
        house.secrets.put_secret_value(SecretId=SECRET_NAME, SecretString=json.dumps(OLD | {"poolMax": 50}))
        return house.imburse.obey(request)

    house.imburse.script = [meanwhile]
    result = house.put(new)
    assert isinstance(result.exception, CommandError)
    assert "somebody else changed" in result.exception.problem
    assert house.stored() == OLD | {"poolMax": 50}


def begin_rotation(house: House) -> str:
    """What createSecret leaves; the version's id."""
    made = house.secrets.put_secret_value(
        SecretId=SECRET_NAME, SecretString=json.dumps(OLD | secret()), VersionStages=["AWSPENDING"]
    )
    return made["VersionId"]


def test_while_a_rotation_is_under_way_nothing_is_asked_for_and_nothing_stored(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = begin_rotation(house)
    error = house.refused(pair(house))
    assert "a rotation of imburse/sandbox/tenant-a is under way" in error.problem
    assert f"--remove-from-version-id {pending}" in (error.next_step or "")
    assert house.imburse.requests == []
    asked = at_a_terminal(monkeypatch, {})
    assert isinstance(CliRunner().invoke(app, ["put-key", NAME]).exception, CommandError)
    assert asked == []


def test_the_next_step_that_is_named_gives_the_rotation_up(house: House) -> None:
    pending = begin_rotation(house)
    command = (house.refused(pair(house)).next_step or "").split("aws secretsmanager ")[-1].split()
    assert command[0] == "update-secret-version-stage"
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--remove-from-version-id"] == pending
    house.secrets.update_secret_version_stage(
        SecretId=options["--secret-id"],
        VersionStage=options["--version-stage"],
        RemoveFromVersionId=options["--remove-from-version-id"],
    )
    assert house.put(pair(house)).exit_code == 0


def test_a_rotation_that_begins_while_imburse_is_asked_is_noticed(house: House) -> None:
    new = pair(house)

    def meanwhile(request: Any) -> Any:
        begin_rotation(house)
        return house.imburse.obey(request)

    house.imburse.script = [meanwhile]
    result = house.put(new)
    assert isinstance(result.exception, CommandError)
    assert "is under way" in result.exception.problem
    assert house.stored() == OLD


# No private key is seen, whatever happens


def _break_store(house: House, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(**_: object) -> Any:
        raise failure

    monkeypatch.setattr(house.secrets, "put_secret_value", fail)


PATHS: dict[str, Callable[[House, dict[str, Any], pytest.MonkeyPatch], object]] = {
    "stored": lambda house, new, _: None,
    "refused": lambda house, new, _: house.imburse.keys.clear(),
    "Imburse down": lambda house, new, _: setattr(house.imburse, "always", lambda _: ConnectionError()),
    "bug": lambda house, new, patch: patch.setattr(transport, "Transport", lambda: 1 / 0),
    "bug that quotes it": lambda house, new, patch: patch.setattr(
        "imburse_vending.key_check.check", lambda *_: {}[new["privateKey"]]
    ),
    "not JSON": lambda house, new, _: json.dumps(new)[:-1],
    "twice": lambda house, new, _: json.dumps(new)[:-1] + f', "privateKey": "{new["privateKey"]}"}}',
    "not base64": lambda house, new, _: new | {"privateKey": "?" + new["privateKey"]},
    "pair exchanged": lambda house, new, _: {"publicKey": new["privateKey"] + ":", "privateKey": new["publicKey"]},
    "other tenant": lambda house, new, _: new | {"tenantId": new["privateKey"]},
    "other member": lambda house, new, _: new | {"privatekey": new["privateKey"]},
    "access denied": lambda house, new, patch: _break_store(house, patch, aws_error("AccessDeniedException", 403)),
    "time-out": lambda house, new, patch: _break_store(house, patch, ReadTimeoutError(endpoint_url="https://x")),
    "not JSON in AWS": lambda house, new, _: (
        house.secrets.put_secret_value(SecretId=SECRET_NAME, SecretString="{" + new["privateKey"]) and new
    ),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_no_path_shows_the_private_key(
    path: str, as_json: bool, house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    new = pair(house)
    canary = new["privateKey"]
    members = PATHS[path](house, new, monkeypatch) or new
    arguments = ["put-key", NAME, "--from-file", house.file(members), *(["--json"] if as_json else [])]
    monkeypatch.setattr(sys, "argv", ["imburse-vending", *arguments])
    monkeypatch.setattr("imburse_vending.main.app", app)
    with pytest.raises(SystemExit):
        main()
    written = capfd.readouterr()
    everything = written.out + written.err
    assert everything
    try:
        app(arguments, standalone_mode=False)
    except CommandError as exc:  # what a test runner or a debugger would show of it
        everything += repr(exc) + str(vars(exc)) + "".join(traceback.format_exception(exc))
    except Exception:  # noqa: BLE001 - a bug's or boto3's own words, which main() does not say
        pass
    assert canary not in everything
    assert OLD["privateKey"] not in everything
