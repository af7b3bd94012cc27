"""The demo as a newcomer runs it, and as it must end when the system does not do what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.demo import main

PROJECT = Path(__file__).parents[2]


def test_the_demo_tells_its_nine_steps_in_plain_text_and_succeeds() -> None:
    # An ASCII locale is the worst a pipe can offer.
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "local", "demo"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=PROJECT,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(\d)  ", done.stdout, re.MULTILINE) == list("123456789")
    assert "Every step did what it should" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_the_demo_shows_no_token_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0

    shown = capsys.readouterr().out
    assert "eyJhbGciOiJI…" in shown
    assert re.findall(r"eyJ[A-Za-z0-9_-]{10,}", shown) == []


def test_a_step_that_fails_is_named_with_what_came_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = tmp_path / "nobody.cedar"
    nobody.write_text("forbid (principal, action, resource);\n")

    assert main(nobody) == 1

    shown = capsys.readouterr().out
    assert "✗ step 2 failed: the invoke answered" in shown
    assert "NotAuthorized" in shown


def test_a_stack_that_does_not_start_is_named_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.cedar"
    broken.write_text("permit (principal, action, resource")

    assert main(broken) == 1
    assert "✗ the start failed: FunctionStartError" in capsys.readouterr().out
