"""What `make serve` is given: what is usable is used, and what is not is one line without a value in it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from local.serve_files import FileError, check_policy, read_callers, read_secrets
from local.serve_options import OptionError, read_options

ROLE = "arn:aws:iam::123456789012:role/orders"


def file(folder: Path, content: object) -> Path:
    path = folder / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_secrets_are_kept_as_they_are(tmp_path: Path) -> None:
    content = {
        "imburse/sandbox/a": {"publicKey": "p"},
        "imburse/sandbox/b": {"odd": 1},
        "imburse/sandbox/c": "not JSON",
    }
    read = read_secrets(file(tmp_path, content))
    assert json.loads(read["imburse/sandbox/a"]) == {"publicKey": "p"}
    assert json.loads(read["imburse/sandbox/b"]) == {"odd": 1}
    assert read["imburse/sandbox/c"] == "not JSON"


@pytest.mark.parametrize("arn", [ROLE, "arn:aws:sts::123456789012:assumed-role/orders/session"])
def test_callers_are_roles(tmp_path: Path, arn: str) -> None:
    secret = base64.b64encode(os.urandom(20)).decode()
    caller = read_callers(file(tmp_path, {"AKIDLOCAL": {"secretAccessKey": secret, "arn": arn}}))["AKIDLOCAL"]
    assert (caller.access_key_id, caller.secret_access_key, caller.arn) == ("AKIDLOCAL", secret, arn)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "must be JSON: line 1, column 2"),
        ("[]", "must be a JSON object"),
        ('{"imburse/a/b": {}, "imburse/a/b": {}}', "a name stands twice"),
        ('{"imburse/a b": {}}', "a secret's name has"),
        ('{"imburse/a/b": ""}', "the value must have"),
        (json.dumps({"imburse/a/b": "x" * 70_000}), "the value must have"),
        ("[" * 100_000, "nesting is too large"),
    ],
)
def test_a_bad_secrets_file_is_refused_by_file_and_rule(tmp_path: Path, content: str, rule: str) -> None:
    path = file(tmp_path, content)
    with pytest.raises(FileError) as caught:
        read_secrets(path)
    assert rule in str(caught.value)
    assert str(caught.value).startswith(f"SECRETS {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("hidden-value", "must be an object with secretAccessKey and arn"),
        ({"arn": ROLE}, "must be an object with secretAccessKey and arn"),
        ({"secretAccessKey": "hidden-value", "arn": ROLE, "more": 1}, "and nothing else"),
        ({"secretAccessKey": "", "arn": ROLE}, "secretAccessKey must be ASCII text"),
        ({"secretAccessKey": "hidden-value", "arn": "arn:aws:iam::123456789012:user/ann"}, "arn must be"),
        ({"secretAccessKey": "hidden-value", "arn": "hidden-value"}, "arn must be"),
    ],
)
def test_a_bad_caller_is_refused_without_showing_a_value(tmp_path: Path, value: object, rule: str) -> None:
    with pytest.raises(FileError) as caught:
        read_callers(file(tmp_path, {"AKIDLOCAL": value}))
    assert rule in str(caught.value)
    assert "AKIDLOCAL" in str(caught.value)
    assert "hidden-value" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for read in (read_secrets, read_callers, check_policy):
        with pytest.raises(FileError, match="cannot be read: No such file"):
            read(tmp_path / "nothing")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="must be UTF-8 text"):
        check_policy(tmp_path / "file")


def test_without_files_there_are_credentials_and_callers_to_try() -> None:
    first, second = read_options({}, {}), read_options({}, {})
    assert set(first.settings.secrets) == {"imburse/sandbox/tenant-a", "imburse/sandbox/account"}
    assert first.settings.secrets != second.settings.secrets
    assert "arn:aws:iam::123456789012:role/orders" in {caller.arn for caller in first.made_callers.values()}
    assert (first.settings.api_port, first.settings.lambda_port) == (3000, 3001)


def test_given_callers_are_not_counted_as_made(tmp_path: Path) -> None:
    path = file(tmp_path, {"AKIDLOCAL": {"secretAccessKey": "x" * 20, "arn": ROLE}})
    options = read_options({}, {"CALLERS": str(path)})
    assert set(options.settings.callers) == {"AKIDLOCAL"}
    assert not options.made_callers


def test_options_win_over_variables_and_empty_means_not_given() -> None:
    options = read_options(
        {"API_PORT": "4000", "LAMBDA_PORT": None}, {"API_PORT": "5000", "LAMBDA_PORT": "", "IMBURSE_URL": ""}
    )
    assert (options.settings.api_port, options.settings.lambda_port) == (4000, 3001)
    assert options.settings.imburse_url is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:8080", "https://imburse.example.com/base"])
def test_a_base_url_is_https_or_this_machine(url: str) -> None:
    assert read_options({}, {"IMBURSE_URL": f"{url}/"}).settings.imburse_url == url


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMBURSE_URL", "http://imburse.example.com"),
        ("IMBURSE_URL", "imburse.example.com"),
        ("IMBURSE_URL", "https://a,https://b"),
        ("API_PORT", "http"),
        ("API_PORT", "70000"),
        ("LAMBDA_PORT", "-1"),
        ("CONCURRENCY", "0"),
    ],
)
def test_a_bad_option_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(OptionError, match=f"^{name}: "):
        read_options({}, {name: value})
