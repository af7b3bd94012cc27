"""`imburse-vending sign`: the vendor's form, offline. It agrees with the known answers and never shows the private key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import typer

from tests.cli_run import run
from tests.fakes import secret

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors/hmac.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["stringToSign"][-40:])
def test_it_agrees_with_the_known_answers(tmp_path: Path, vector: dict[str, Any]) -> None:
    (tmp_path / "key.json").write_text(json.dumps({name: vector[name] for name in ("publicKey", "privateKey")}))
    arguments = ["--key-file", str(tmp_path / "key.json"), "--nonce", vector["nonce"]]
    done = run(
        "sign",
        *arguments,
        "--timestamp",
        str(vector["timestamp"]),
        "--body",
        "-",
        "--json",
        stdin=vector["body"].encode(),
    )
    known = ("publicKey", "nonce", "timestamp", "bodyHash", "stringToSign", "signature", "authorization")
    assert json.loads(done.out) == {name: vector[name] for name in known}
    assert vector["privateKey"] not in done.text


def test_people_see_each_step_and_the_header_in_one_piece(tmp_path: Path) -> None:
    vector = VECTORS[1]
    (tmp_path / "key.json").write_text(json.dumps({name: vector[name] for name in ("publicKey", "privateKey")}))
    (tmp_path / "body").write_text(vector["body"])
    arguments = ["--nonce", vector["nonce"], "--timestamp", str(vector["timestamp"]), "--body", str(tmp_path / "body")]
    done = run("sign", "--key-file", str(tmp_path / "key.json"), *arguments)
    for name in ("stringToSign", "bodyHash", "signature", "authorization"):
        assert vector[name] in done.out


def test_the_key_may_come_from_a_pipe() -> None:
    members = secret()
    done = run("sign", "--key-file", "-", "--json", stdin=json.dumps(members).encode())
    assert json.loads(done.out)["publicKey"] == members["publicKey"]


def test_a_prompt_does_not_show_the_private_key() -> None:
    vector = VECTORS[0]
    with mock.patch.object(typer, "prompt", side_effect=[vector["publicKey"], vector["privateKey"]]) as prompt:
        done = run("sign", terminal=True)
    assert done.code == 0
    assert [call.kwargs.get("hide_input", False) for call in prompt.call_args_list] == [False, True]
    assert vector["privateKey"] not in done.text


def test_without_a_key_and_without_a_terminal_nobody_is_asked() -> None:
    done = run("sign")
    assert done.code == 2
    assert "--key-file" in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nonce", "a:b"], "nonce"),
        (["--timestamp", "1614350382000"], "not milliseconds"),
        (["--body", "/no/such/file"], "No such file"),
        (["--body", "-"], "once only"),
    ],
)
def test_what_cannot_be_signed_is_one_line_that_names_the_option(arguments: list[str], says: str) -> None:
    done = run("sign", "--key-file", "-", *arguments, stdin=json.dumps(secret()).encode())
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b'{"publicKey": "p"}', b'{"publicKey": "p", "privateKey": "CANARY-no-base64"}']
)
def test_a_key_that_cannot_be_used_is_not_repeated(content: bytes) -> None:
    done = run("sign", "--key-file", "-", stdin=content)
    assert done.code == 1
    assert "CANARY" not in done.text
    assert "Traceback" not in done.text
