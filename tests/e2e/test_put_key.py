"""A key from the portal to the caller, as an operator puts it: the real command, a real terminal, and vending uses it."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from imburse_auth.credential import CredentialId
from local.demo_clients import lambda_client, secrets_client
from local.rotation import Driver
from local.serving import in_background
from local.stack import REGION, STACK_NAME, LocalStack, StackSettings
from tests.fakes import secret
from tests.processes import wait_until

NAME = "sandbox/tenant-a"
OLD = secret(poolMin=0, poolMax=0, name="settlement")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    log = tmp_path_factory.mktemp("log") / "functions.log"
    with in_background(
        LocalStack(StackSettings(secrets={f"imburse/{NAME}": json.dumps(OLD)}, log_file=log))
    ) as running:
        yield running


@pytest.fixture
def folder(stack: LocalStack, tmp_path: Path) -> Path:
    """Where `make serve` runs, as far as --local looks."""
    variables = {
        "AWS_ACCESS_KEY_ID": "LOCALORDERS",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_LAMBDA": stack.lambda_url,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": stack.moto_url,
    }
    (tmp_path / ".local").mkdir()
    (tmp_path / ".local/env").write_text("".join(f"export {name}={value}\n" for name, value in variables.items()))
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "imburse_vending.main", *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def at_terminal(folder: Path, answers: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """The exit status, and all that is seen. A prompt that says `not shown` is answered once the terminal echoes no more."""
    ours, theirs = pty.openpty()
    seen = b""
    with subprocess.Popen(
        command(*arguments), cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        try:
            for prompt, answer in answers.items():
                while prompt.encode() not in seen:
                    assert select.select([ours], [], [], 30)[0], seen
                    seen += os.read(ours, 4096)
                if "not shown" in prompt:
                    wait_until(lambda: not termios.tcgetattr(theirs)[3] & termios.ECHO, "the echo is off", seconds=30)
                os.write(ours, f"{answer}\n".encode())
            status = process.wait(60)
        finally:
            process.kill()
    os.close(theirs)
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    return status, seen.decode()


def new_key(stack: LocalStack, **changes: Any) -> dict[str, Any]:
    """A key made in the portal."""
    members = secret(**changes)
    requests.post(f"{stack.imburse_url}/control/keys", json=members, timeout=10).raise_for_status()
    return members


def current(stack: LocalStack, stage: str = "AWSCURRENT") -> dict[str, Any]:
    client = secrets_client(stack.moto_url, REGION)
    members: dict[str, Any] = json.loads(
        client.get_secret_value(SecretId=f"imburse/{NAME}", VersionStage=stage)["SecretString"]
    )
    return members


def vend(stack: LocalStack) -> dict[str, Any]:
    answer = lambda_client(stack.lambda_url, REGION).invoke(
        FunctionName=f"{STACK_NAME}-vend:settlement-job", Payload=json.dumps({"credential": NAME})
    )
    body: dict[str, Any] = json.load(answer["Payload"])
    return body


def test_a_key_is_typed_in_and_vending_uses_it_as_soon_as_the_old_one_is_gone(stack: LocalStack, folder: Path) -> None:
    assert "accessToken" in vend(stack)
    before, new = current(stack), new_key(stack)
    prompts = {"public key": new["publicKey"], "private key (not shown)": new["privateKey"]}
    status, seen = at_terminal(folder, prompts, "put-key", NAME, "--local")
    assert status == 0, seen
    assert new["publicKey"] in seen
    assert new["privateKey"] not in seen
    stored = current(stack)
    pair = {name: new[name] for name in ("publicKey", "privateKey")}
    assert stored == before | pair | {"createdAt": stored["createdAt"]}
    assert current(stack, "AWSPREVIOUS") == before

    requests.delete(f"{stack.imburse_url}/control/keys/{before['publicKey']}", timeout=10).raise_for_status()
    assert "accessToken" in vend(stack)

    log = str(stack._settings.log_file)
    wait_until(lambda: log_has(log, 2), "both records are written")
    verified = run(folder, "audit", "verify", log, "--json")
    assert verified.returncode == 0, verified.stdout
    assert json.loads(verified.stdout)["records"] >= 2
    shown = run(folder, "audit", "show", log, "--credential", NAME, "--json")
    # Another test may have rotated the key before, and a rotation has no caller.
    callers = [row["caller"] for row in json.loads(shown.stdout)["rows"] if "caller" in row]
    assert callers[:2] == ["alias/settlement-job"] * 2


def test_a_key_that_is_stored_after_a_rotation_takes_the_place_of_the_one_it_made(
    stack: LocalStack, folder: Path
) -> None:
    rotated = Driver(
        lambda_client(stack.lambda_url, REGION), secrets_client(stack.moto_url, REGION), say=lambda _: None
    ).rotate(CredentialId.parse(NAME))
    file = folder / "tenant-a.secret.json"
    new = new_key(stack)
    file.write_text(json.dumps(new))
    file.chmod(0o600)
    done = run(folder, "put-key", NAME, "--from-file", str(file), "--local", "--json")
    assert json.loads(done.stdout)["previousPublicKey"] == rotated, done.stdout
    assert current(stack)["publicKey"] == new["publicKey"]
    assert current(stack, "AWSPREVIOUS")["publicKey"] == rotated


def log_has(path: str, count: int) -> bool:
    return Path(path).read_text().count('"event": "audit"') >= count


def test_a_pair_that_the_emulator_refuses_or_that_is_anothers_is_not_stored(stack: LocalStack, folder: Path) -> None:
    file = folder / "tenant-a.secret.json"
    before = current(stack)
    for members, said in (
        (secret(accountId=None, tenantId=None), "API_KEY_NOT_FOUND"),
        (new_key(stack, tenantId="tenant-b") | {"tenantId": "tenant-a"}, "TENANT_ID_HAS_NO_ACCESS"),
    ):
        file.write_text(json.dumps(members))
        file.chmod(0o600)
        done = run(folder, "put-key", NAME, "--from-file", str(file), "--local")
        assert done.returncode == 1, done.stderr
        assert said in done.stderr
        assert members["privateKey"] not in done.stdout + done.stderr
    assert current(stack) == before
