"""`imburse-vending policy`, as it is called at a shell."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from imburse_vending import policy_files
from imburse_vending.common import CommandError, ExitCode
from imburse_vending.main import app
from tests.machine import ACCOUNT, POLICY_DIR, ROOT, Machine, api_event

ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
TENANT_A = "sandbox/tenant-a"
OPEN = '@id("open")\npermit (principal, action == Action::"vend", resource in Environment::"sandbox");\n'


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def call(*arguments: object) -> Result:
    """Run a command; `exception` is the CommandError that `main` would print."""
    return CliRunner().invoke(app, ["policy", *map(str, arguments)])


def told(result: Result) -> CommandError:
    assert isinstance(result.exception, CommandError), result.output
    return result.exception


def document(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy with one warning."""
    path = tmp_path / "new.cedar"
    path.write_text(OPEN)
    return path


# check


def test_check_reads_every_stages_file() -> None:
    result = call("check", "--strict")
    assert result.exit_code == 0
    names = [f"{stage}.cedar: nothing found" for stage in ("dev", "production", "sandbox")]
    assert [line.rpartition("/")[2] for line in result.stdout.splitlines()] == names


def test_check_fails_on_an_error_and_shows_where(file: Path) -> None:
    file.write_text(OPEN + "permit (\n  principal);\n")
    result = call("check", file)
    assert result.exit_code == 1
    assert f"{file}:4" in result.stdout
    assert "error" in result.stdout


def test_check_fails_on_a_warning_only_if_strict(file: Path) -> None:
    assert "warning" in call("check", file).stdout
    assert call("check", file).exit_code == 0
    assert call("check", file, "--strict").exit_code == 1


def test_check_tells_programs_the_same(file: Path) -> None:
    (checked,) = document(call("check", file, "--json"))["files"]
    (finding,) = checked["findings"]
    assert (finding["level"], finding["line"], finding["rule"]) == ("warning", 1, "open")


def test_what_stands_in_a_file_is_shown_as_text_and_without_colours(file: Path) -> None:
    file.write_text('@id("[red]\x1b[31mx")\npermit (principal, action == Action::"vend", resource);\n')
    shown = call("check", file).stdout
    assert "[red]" in shown
    assert "\x1b" not in shown


def test_a_file_that_cannot_be_read_is_a_wrong_call(tmp_path: Path) -> None:
    for path in (tmp_path / "none.cedar", tmp_path / "latin.cedar"):
        (tmp_path / "latin.cedar").write_bytes(b"// \xff")
        assert (told(call("check", path)).code, told(call("check", path)).problem[: len(str(path))]) == (2, str(path))


def test_outside_a_checkout_the_programs_own_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert policy_files.stage_files() == sorted(POLICY_DIR.glob("*.cedar"))


def test_the_hosts_of_the_template_and_of_each_stage_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy_files.environments() == {"sandbox", "production"}
    (tmp_path / policy_files.FOLDER).mkdir(parents=True)
    (tmp_path / "template.yaml").write_text((ROOT / "template.yaml").read_text())
    (tmp_path / "samconfig.toml").write_text('parameter_overrides = ["Stage=dev", "ImburseHosts=acme=https://a.test"]')
    monkeypatch.chdir(tmp_path)
    assert policy_files.environments() == {"sandbox", "production", "acme"}


# explain


def test_explain_shows_the_rule_that_allowed_it_and_where_it_stands() -> None:
    result = call("explain", "--caller", f"{ROLE}orders", "--action", "vend", "--credential", TENANT_A)
    assert result.exit_code == 0
    assert "allowed" in result.stdout
    assert "by orders-tenant-a (dev.cedar:5)" in result.stdout
    assert 'principal == Caller::"arn:aws:iam::123456789012:role/orders"' in result.stdout


def test_explain_of_a_denial_ends_with_3_and_says_what_is_needed() -> None:
    result = call("explain", "--caller", "alias/settlement-job", "--credential", TENANT_A, "--count", 11)
    assert result.exit_code == ExitCode.REFUSED
    assert "count 1 to 10: settlement-job-small-batches" in result.stdout
    assert '@id("settlement-job-vend-sandbox-tenant-a")' in result.stdout


@pytest.mark.parametrize(
    "name", [f"arn:aws:sts::{ACCOUNT}:assumed-role/orders/me", f"arn:aws:iam::{ACCOUNT}:role/team/orders"]
)
def test_a_session_and_a_path_are_folded_as_at_the_door_and_said_so(name: str) -> None:
    result = call("explain", "--caller", name, "--credential", TENANT_A)
    assert result.exit_code == 0
    assert f"at the door, {name} is its role" in result.stdout


def test_explain_takes_the_endpoint_and_the_address_into_account() -> None:
    asked = ("explain", "--caller", f"{ROLE}payouts", "--credential", "production/tenant-a")
    assert call(*asked).exit_code == 3
    assert call(*asked, "--vpce", "vpce-0123456789abcdef0", "--source-ip", "10.0.0.1").exit_code == 0
    assert call(*asked, "--via", "proof").exit_code == 3


def test_what_is_expected_is_checked_in_every_file() -> None:
    asked = ("explain", "--caller", "alias/access-report", "--credential", TENANT_A)
    assert call(*asked, "--stage", "sandbox", "--expect", "allowed").exit_code == 0
    assert call(*asked, "--stage", "sandbox", "--expect", "denied").exit_code == 1
    # Production has no rule about sandbox.
    assert call(*asked, "--stage", "all", "--expect", "allowed").exit_code == 1
    stranger = ("explain", "--caller", f"{ROLE}stranger", "--stage", "all", "--expect", "denied")
    result = call(*stranger, "--action", "operate")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 3)


def test_explain_tells_programs_the_same() -> None:
    (said,) = document(call("explain", "--caller", f"{ROLE}refunds", "--credential", TENANT_A, "--json"))["answers"]
    assert (said["allowed"], said["budgets"], said["rules"][0]["line"]) == (True, ["60/minute"], 38)


@pytest.mark.parametrize(
    "options",
    [
        ("--caller", "orders", "--credential", TENANT_A),
        ("--caller", "alias/42", "--credential", TENANT_A),
        ("--caller", "alias/x", "--via", "api", "--credential", TENANT_A),
        ("--caller", f"{ROLE}a", "--via", "invoke", "--credential", TENANT_A),
        ("--caller", f"{ROLE}a", "--via", "proof", "--vpce", "vpce-1", "--credential", TENANT_A),
        ("--caller", f"{ROLE}a", "--source-ip", "here", "--credential", TENANT_A),
        ("--caller", f"{ROLE}a", "--action", "inspect", "--count", 2, "--credential", TENANT_A),
        ("--caller", f"{ROLE}a", "--stage", "moon", "--credential", TENANT_A),
        ("--caller", f"{ROLE}a", "--stage", "dev", "--policy", "x", "--credential", TENANT_A),
        ("--caller", f"{ROLE}a"),
    ],
)
def test_what_cannot_come_through_a_door_is_a_wrong_call(options: tuple[object, ...]) -> None:
    assert told(call("explain", *options)).code == ExitCode.USAGE


@pytest.mark.parametrize(
    "options",
    [
        ("--credential", "sandbox"),
        ("--credential", TENANT_A, "--account", "12"),
        ("--credential", TENANT_A, "--count", 0),
    ],
)
def test_a_malformed_option_is_a_wrong_call(options: tuple[object, ...]) -> None:
    assert call("explain", "--caller", "alias/x", *options).exit_code == ExitCode.USAGE


def test_a_policy_that_is_not_sound_points_to_check(file: Path) -> None:
    file.write_text("permit (")
    error = told(call("explain", "--caller", "alias/x", "--credential", TENANT_A, "--policy", file))
    assert (error.code, error.next_step) == (1, f"imburse-vending policy check {file}")


# who-can


def test_who_can_is_a_table_of_callers() -> None:
    lines = call("who-can", "vend", TENANT_A).stdout.splitlines()
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells[0] == ["caller", "via", "conditions", "rules", "budget"]
    assert ["alias/settlement-job", "invoke", "count 1 to 10", "settlement-job-small-batches", "-"] in cells
    assert [f"{ROLE}refunds", "api, proof", "-", "refunds-tenant-a", "60/minute"] in cells


def test_who_can_says_nobody_and_anybody(file: Path) -> None:
    assert call("who-can", "vend", "sandbox/x", "--stage", "production").stdout.strip() == "nobody"
    found = document(call("who-can", "vend", "sandbox/x", "--policy", file, "--json"))["who"]
    assert {one["caller"] for one in found} == {"anybody", "any alias"}


def test_who_can_about_whole_accounts_says_whose_aliases_it_means(file: Path) -> None:
    file.write_text(f'permit (principal in Account::"{ACCOUNT}", action, resource);')
    result = call("who-can", "vend", TENANT_A, "--policy", file)
    assert "any alias" in result.stdout
    assert "--account" in result.stderr
    elsewhere = call("who-can", "vend", TENANT_A, "--policy", file, "--account", "2" * 12)
    assert "any alias" not in elsewhere.stdout
    assert elsewhere.stderr == ""


def test_who_can_asks_about_one_file_and_something() -> None:
    assert told(call("who-can", "vend", TENANT_A, "--stage", "all")).code == ExitCode.USAGE
    assert told(call("who-can", "vend")).code == ExitCode.USAGE


# replay


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Two vends that were allowed and one that was not."""
    machine = Machine()
    for role in ("orders", "orders", "newcomer"):
        machine.api(api_event(role=role))
    path = tmp_path / "audit.log"
    path.write_text("".join(f"vend {json.dumps(record)}\nvend no record\n" for record in machine.audit))
    return path


def test_replay_lists_who_loses_and_who_gains(trail: Path, file: Path) -> None:
    result = call("replay", "--audit", trail, "--against", file)
    assert (result.exit_code, "3 records replayed: 0 lose access, 1 gain it" in result.stdout) == (0, True)
    assert f"gains  {ROLE}newcomer" in result.stdout
    file.write_text("")
    result = call("replay", "--audit", trail, "--against", file, "--fail-on-loss")
    assert (result.exit_code, "3 records replayed: 2 lose access, 0 gain it" in result.stdout) == (1, True)


def test_replay_against_the_same_rules_finds_nothing(trail: Path) -> None:
    result = call("replay", "--audit", trail, "--against", POLICY_DIR / "dev.cedar", "--fail-on-loss")
    assert (result.exit_code, result.stdout.strip()) == (0, "3 records replayed: nobody gains or loses access")


def test_replay_tells_programs_the_same(trail: Path, file: Path) -> None:
    told_in_full = document(call("replay", "--audit", trail, "--audit", trail, "--against", file, "--json"))
    assert (told_in_full["records"], told_in_full["replayed"], told_in_full["losses"]) == (6, 6, [])
    (gain,) = told_in_full["gains"]
    assert (gain["caller"], gain["records"], gain["counts"]) == (f"{ROLE}newcomer", 2, [1])
    assert (gain["rulesThen"], gain["rulesNow"]) == ([], ["open"])


def test_replay_counts_what_it_could_not_replay(trail: Path) -> None:
    with trail.open("a") as file:
        file.write('vend {"event": "audit", "time": "2026-01-01T00:00:00.000Z", "door": "api", "decision": "deny"}\n')
    assert (
        "1 not replayable: no caller's request"
        in call("replay", "--audit", trail, "--against", POLICY_DIR / "dev.cedar").stdout
    )


def test_a_file_without_records_is_a_wrong_call(file: Path) -> None:
    assert told(call("replay", "--audit", file, "--against", file)).code == ExitCode.USAGE


@pytest.mark.parametrize("command", ["check", "explain", "who-can", "replay"])
def test_each_commands_help_has_examples(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "imburse-vending policy" in result.stdout
