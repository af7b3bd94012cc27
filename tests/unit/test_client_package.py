"""What it costs to import the client, and what is in the wheel that carries it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

LAYER = Path(__file__).parents[2] / "layers/imburse_auth"
HEAVY = ("boto3", "botocore", "httpx", "requests", "urllib3", "pytest")


def loaded_after(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after running the code."""
    code += f"\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_importing_the_client_and_making_its_sources_loads_no_sdk_and_no_http_library() -> None:
    made = """
import imburse_auth.client as c
c.source_from_env({"VENDING_API": "https://api.test"})
c.source_from_env({"VENDING_FUNCTION": "vend:job"})
c.KeySource(__import__("imburse_auth").ApiKey("public", "a2V5"), "https://imburse.test")
"""
    assert loaded_after(made) == set()


def test_requests_is_loaded_with_the_auth_and_boto3_only_with_the_first_token() -> None:
    assert loaded_after("from imburse_auth.client import VendedAuth; VendedAuth('a/b')") == {"requests", "urllib3"}


def test_httpx_is_loaded_by_its_own_module_alone() -> None:
    assert loaded_after("import imburse_auth.client.httpx_auth") == {"httpx"}


def test_what_the_package_names_is_there() -> None:
    import imburse_auth.client as package

    assert all(getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="VendedOther"):
        package.VendedOther  # noqa: B018


def test_the_wheel_says_that_it_is_typed_and_has_the_client(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=LAYER, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"imburse_auth/py.typed", "imburse_auth/client/auth.py", "imburse_auth/client/testing.py"} <= names
