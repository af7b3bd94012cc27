"""The README's examples, run as they are printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from local.serve import SHELL_VARIABLES
from tests.fakes import secret
from tests.processes import wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def section(title: str) -> str:
    """The text under a heading, down to the next one of its own or a higher level."""
    level = title.split()[0]
    text = README[README.index(f"\n{title}\n") + 1 :]
    end = re.search(rf"\n#{{2,{len(level)}}} ", text)
    return text[: end.start()] if end else text


def blocks(text: str, kind: str = "") -> list[str]:
    return [body for found, body in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL) if found == kind]


def commands(*titles: str) -> list[str]:
    """Each command of these sections for the local stack: a block that begins with `aws`, and what has a `<placeholder>`, is not."""
    local = [block for title in titles for block in blocks(section(title)) if not block.startswith("aws ")]
    lines = [line for block in local for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith((".venv/bin/", "make ")) and "<" not in line]


CALLERS = section("## Get a token")
PYTHON = blocks(CALLERS, "python")
CLI = [block for block in blocks(CALLERS) if "imburse-vending token" in block]
SHELL = [line for line in commands("## Get a token") if line.startswith(".venv/bin/aws")]
OPERATORS = commands(
    *("### Rotating a key", "### Probes", "### The dashboard", "### Policy in daily life", "### The audit trail")
)
LOG = ROOT / ".local/functions.log"


@dataclass
class Shell:
    """Another shell than the one of `make serve`, which sourced .local/env; `told` is what serve said to a person."""

    variables: dict[str, str]
    told: str

    def run(self, command: str | list[str], *, cwd: Path = ROOT, variables: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["bash", "-c", command] if isinstance(command, str) else command,
            cwd=cwd,
            env={**self.variables, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    told = tmp_path_factory.mktemp("serve") / "told"
    environment = {**os.environ, "API_PORT": "0", "LAMBDA_PORT": "0"}
    command = [sys.executable, "-m", "local", "serve"]
    with (
        told.open("w") as stderr,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True) as serve,
    ):
        try:
            assert serve.stdout is not None
            assert serve.stdout.readline().startswith("READY ")
            exports = dict(re.findall(r"export (\w+)=(.*)", SHELL_VARIABLES.read_text()))
            path = f"{BIN}:{os.environ['PATH']}"
            kept = {name: os.environ[name] for name in ("HOME", "PIP_INDEX_URL") if name in os.environ}
            yield Shell({"PATH": path, **kept, **exports}, told.read_text())
        finally:
            serve.terminate()


def test_the_examples_are_there() -> None:
    assert (len(PYTHON), len(SHELL), len(CLI), len(OPERATORS)) == (4, 3, 2, 10)


@pytest.mark.parametrize(
    ("number", "printed"),
    [(0, r"200 \{.*'tenantId'.*"), (1, r"\[200, 200, 200\]"), (2, r"\{'id': 'payout-1'\}"), (3, r"None None 3")],
    ids=["a microservice", "a scheduled job", "a test of a consumer", "a role with a proof"],
)
def test_a_python_example_prints_what_it_should(shell: Shell, number: int, printed: str) -> None:
    assert re.fullmatch(printed, shell.run([sys.executable, "-c", PYTHON[number]]).strip())


@pytest.mark.parametrize("command", SHELL)
def test_a_token_or_a_report_comes_without_the_client(shell: Shell, command: str) -> None:
    answer = shell.run(command)
    assert '"accessToken"' in answer or '"reached"' in answer


@pytest.mark.parametrize("block", CLI, ids=["commands", "pipes"])
def test_the_command_line_does_what_is_printed(shell: Shell, block: str) -> None:
    with tempfile.TemporaryDirectory(
        dir=ROOT / ".local"
    ) as folder:  # below the checkout, so that --local finds .local/env
        said = shell.run(f"set -e -o pipefail\n{block}", cwd=Path(folder))
    assert "tenantId" in said


def test_an_operator_freezes_and_everybody_is_refused_until_it_is_thawed(shell: Shell) -> None:
    (command,) = commands("### The brake")
    found = re.search(r"(LOCALOPERATORS) .* secret access key (\S+)", shell.told)
    assert found
    keys = {"AWS_ACCESS_KEY_ID": found[1], "AWS_SECRET_ACCESS_KEY": found[2]}
    assert '"effectiveWithinSeconds": 10' in shell.run(command, variables=keys)
    assert '"effectiveWithinSeconds": 10' in shell.run(command.replace('"freeze"', '"thaw"'), variables=keys)


@pytest.mark.parametrize("command", OPERATORS)
def test_an_operators_command_works(shell: Shell, command: str) -> None:
    shell.run(".venv/bin/imburse-vending token sandbox/tenant-a --local".replace(".venv/bin", str(BIN)))
    wait_until(lambda: LOG.is_file() and '"event": "audit"' in LOG.read_text(), "an audit record")
    assert shell.run(command).strip()


def test_a_key_is_stored_from_a_file(shell: Shell) -> None:
    imburse = re.search(r"Imburse +(\S+)", shell.told)
    assert imburse
    now = json.loads(
        shell.run(
            f"{BIN}/aws secretsmanager get-secret-value --secret-id imburse/sandbox/tenant-a --version-stage AWSCURRENT"
            " --query SecretString --output text"
        )
    )
    pair = secret(accountId=now["accountId"], tenantId=now["tenantId"])
    requests.post(f"{imburse[1]}/control/keys", json=pair, timeout=10).raise_for_status()
    command = next(line for line in commands("## Run it") if line.startswith("make put-key") and "ARGS" in line)
    file = ROOT / "tenant-a.secret.json"
    file.touch(mode=0o600)
    try:
        file.write_text(json.dumps(pair))
        said = shell.run(command)
    finally:
        file.unlink()
    assert pair["publicKey"] in said
    assert pair["privateKey"] not in said


def test_the_shell_variables_are_for_their_owner_only(shell: Shell) -> None:
    assert SHELL_VARIABLES.stat().st_mode & 0o077 == 0


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", README, re.MULTILINE))
    assert {"demo", "test", "serve", "check", "build", "deploy", "validate"} <= named
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)] == []


def test_every_error_of_the_code_is_in_the_readmes_table() -> None:
    from imburse_auth import errors as layer
    from vending import errors as functions

    kinds = [
        kind
        for module in (layer, functions)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, layer.VendingError)
    ]
    for kind in set(kinds) - {layer.VendingError}:
        assert f"| `{kind.code}` | {kind.status} | `{kind.__name__}` |" in README
