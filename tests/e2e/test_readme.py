"""The README's examples, run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.serve import SHELL_VARIABLES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
_BEGIN, _END = README.index("## Get a token"), README.index("### What goes wrong")
BLOCKS = re.findall(r"```(python)?\n(.*?)```", README[_BEGIN:_END], re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind]
SHELL = [line for kind, text in BLOCKS if not kind for line in text.splitlines() if line.startswith(".venv")]


@pytest.fixture(scope="module")
def shell() -> Iterator[dict[str, str]]:
    """`make serve` in one shell; the variables of another that sourced .local/env."""
    environment = {**os.environ, "API_PORT": "0", "LAMBDA_PORT": "0", "LOG_FILE": os.devnull}
    command = [sys.executable, "-m", "local", "serve"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as serve:
        try:
            assert serve.stdout is not None
            assert serve.stdout.readline().startswith("READY ")
            exports = re.findall(r"export (\w+)=(.*)", SHELL_VARIABLES.read_text())
            yield {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **dict(exports)}
        finally:
            serve.terminate()


def run(command: list[str] | str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_are_there() -> None:
    assert (len(PYTHON), len(SHELL)) == (2, 3)


def test_the_microservice_gets_a_token_and_uses_it(shell: dict[str, str]) -> None:
    assert run([sys.executable, "-c", PYTHON[0]], shell).startswith("200 {")


def test_the_scheduled_job_gets_three_tokens(shell: dict[str, str]) -> None:
    assert run([sys.executable, "-c", PYTHON[1]], shell) == "None None 3\n"


@pytest.mark.parametrize("command", SHELL)
def test_the_shell_commands_answer(shell: dict[str, str], command: str) -> None:
    if not (ROOT / ".venv").exists():
        command = command.replace(".venv/bin", str(Path(sys.executable).parent))
    answer = run(command, shell)
    assert '"accessToken"' in answer or '"reached"' in answer


def test_the_shell_variables_are_for_their_owner_only(shell: dict[str, str]) -> None:
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
