"""`imburse-vending audit`: every form in which a log is saved, what the commands say, and how they end."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from imburse_vending.audit import app
from imburse_vending.audit_file import read, scan
from imburse_vending.common import CommandError, ExitCode
from vending.errors import AuditUnavailable
from vending.record.audit import AuditRecord, AuditTrail

NOISE = '{"level": "INFO", "message": "refused"}'
NOON = 1_769_860_800  # 2026-01-31T12:00:00Z
ORDERS, REFUNDS = "arn:aws:iam::123456789012:role/orders", "arn:aws:iam::123456789012:role/refunds"


def fingerprint(number: int) -> str:
    return f"{number:02x}" * 32


def vend(
    number: int, minute: int, caller: str = ORDERS, credential: str | None = "sandbox/tenant-a", **changes: Any
) -> Any:
    """A vend that many minutes after noon; its token lives 30 minutes."""
    token = {"sha256": fingerprint(number), "expires": NOON + 60 * (minute + 30), "source": "pool"}
    members = {
        "caller": caller,
        "action": "vend",
        "credential": credential,
        "count": 1,
        "decision": "allow",
        "policies": ("orders-tenant-a",),
        "outcome": "vended",
        "tokens": [token],
        **changes,
    }
    return AuditRecord(f"request-{number}", f"request-{number}", "vend", "api", **members), NOON + 60 * minute


def trail(*records: Any) -> list[str]:
    lines: list[str] = []
    one = AuditTrail(lines.append)
    for record, now in records:
        one.write(record, now=now)
    return lines


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def failed(*arguments: str) -> CommandError:
    result = run(*arguments)
    assert isinstance(result.exception, CommandError), result.output
    return result.exception


# The files


def functions_log(lines: list[str]) -> str:
    return "".join(f"imburse-vending-vend {line}\n" for line in lines)


def filter_log_events(lines: list[str]) -> str:
    events = [
        {"logStreamName": "2026/01/31/[7]0a", "timestamp": 1, "message": line + "\n", "eventId": "1"} for line in lines
    ]
    return json.dumps({"events": events, "searchedLogStreams": []}, indent=4)


def insights(lines: list[str]) -> str:
    rows = [
        [{"field": "@timestamp", "value": "2026-01-31 12:00:00.000"}, {"field": "@message", "value": line}]
        for line in lines
    ]
    return json.dumps({"results": rows, "statistics": {}, "status": "Complete"})


FORMS: dict[str, Callable[[list[str]], str]] = {
    "functions.log": functions_log,
    "JSON lines": lambda lines: "\n".join(lines),
    "JSON lines, as Windows saves them": lambda lines: "\ufeff" + "".join(f"{line}\r\n" for line in lines),
    "filter-log-events": filter_log_events,
    "filter-log-events, as Windows saves it": lambda lines: "\ufeff" + filter_log_events(lines),
    "filter-log-events --query events": lambda lines: json.dumps(json.loads(filter_log_events(lines))["events"]),
    "filter-log-events --query events[].message": lambda lines: json.dumps([line + "\n" for line in lines]),
    "the same, --output text": lambda lines: "\n\t".join(lines) + "\n",
    "logs tail": lambda lines: "".join(f"2026-01-31T12:00:00.000000+00:00 2026/01/31/[7]0a {line}\n" for line in lines),
    "get-query-results": insights,
    "the Insights console": lambda lines: json.dumps([{"@timestamp": "1", "@message": line} for line in lines]),
    "the Insights console, unfolded": lambda lines: json.dumps([{"@message": json.loads(line)} for line in lines]),
    "S3 export": lambda lines: "".join(f"2026-01-31T12:00:00.000Z {line}\n" for line in lines),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_records_to_the_letter(form: str, zipped: bool, tmp_path: Path) -> None:
    lines = trail(*(vend(number, number) for number in range(4)))
    content = FORMS[form]([NOISE, *lines[:2], NOISE, *lines[2:]]).encode()
    path = tmp_path / "a.log"
    path.write_bytes(gzip.compress(content) if zipped else content)
    found = read(path)
    assert [line.text for line in found] == lines
    assert [line.number for line in found] == [2, 3, 5, 6]
    assert [line.record for line in found] == [json.loads(line) for line in lines]
    assert run("verify", str(path)).exit_code == 0


def test_one_record_alone_is_a_file_too(tmp_path: Path) -> None:
    (line,) = trail(vend(1, 0))
    path = tmp_path / "a.json"
    path.write_text(line)
    assert [one.text for one in read(path)] == [line]


@pytest.mark.parametrize(
    "text", ["{" * 100_000, '{"events": 7}', "[]", "\x00\xff", '[[1], {"message": 7}, null]', "{}"]
)
def test_what_holds_no_record_holds_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(text, encoding="latin-1")
    assert scan(path).lines == ()
    assert "there is no audit record" in failed("verify", str(path)).problem
    assert "there is no audit record" in failed("show", str(path), "--caller", ORDERS).problem


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(gzip.compress(b"x" * 1000)[:20]),
        lambda path: path.write_bytes(b"\x1f\x8b" + b"x" * 100),
    ],
    ids=["no file", "a folder", "cut off", "not gzip"],
)
def test_a_file_that_cannot_be_read_is_named(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "a.log")
    error = failed("verify", str(tmp_path / "a.log"))
    assert "a.log" in error.problem
    assert error.code == ExitCode.USAGE


# verify


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.write_text("\n".join(trail(*(vend(number, number) for number in range(4)))))
    return path


def test_verify_says_where_and_what_and_ends_with_1(log: Path) -> None:
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], lines[1].replace("orders", "refunds"), *lines[2:]]))
    result = run("verify", str(log))
    assert result.exit_code == 1
    assert f"{log}:2" in result.output.replace("\n", "")
    assert "changed" in result.output
    shown = json.loads(run("verify", str(log), "--json").output)
    environment = json.loads(lines[0])["environment"]
    assert [(f["what"], f["line"], f["environment"], f["sequence"]) for f in shown["findings"]] == [
        ("changed", 2, environment, 2)
    ]


def test_verify_says_what_it_cannot_see(log: Path) -> None:
    result = run("verify", str(log))
    assert result.exit_code == 0
    assert "4 records of 1 environments: nothing is missing" in result.output
    assert "Not seen by a chain" in result.output


def test_a_later_look_finds_what_was_cut_off_since(log: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    seen.write_text(run("verify", str(log), "--json").output)
    assert run("verify", str(log), "--expect", str(seen)).exit_code == 0
    log.write_text("\n".join(log.read_text().splitlines()[:3]))
    assert run("verify", str(log)).exit_code == 0
    result = run("verify", str(log), "--expect", str(seen))
    assert (result.exit_code, "unexpected" in result.output) == (1, True)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"environments": [{}]}', '{"environments": 1}'])
def test_an_earlier_look_that_is_none_is_called_so(text: str | None, log: Path, tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    if text is not None:
        path.write_text(text)
    assert failed("verify", str(log), "--expect", str(path)).code == ExitCode.USAGE


def test_many_findings_do_not_flood_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text('{"event": "audit"}\n' * 200)
    output = run("verify", str(path)).output
    assert output.count("unchained") == 50
    assert "200 findings, the first 50 of them above" in output
    assert len(json.loads(run("verify", str(path), "--json").output)["findings"]) == 200


def test_what_a_forger_writes_moves_no_cursor(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    evil = "\x1b[2J[red]nothing[/red]\u202e"
    path.write_text(
        json.dumps(
            {
                "event": "audit",
                "environment": evil,
                "sequence": 7,
                "time": "2026-01-31T12:00:00Z",
                "caller": evil,
                "policies": 7,
                "tokens": [{"sha256": evil, "expires": 1}, 3],
                "requestId": 5,
            }
        )
    )
    for result in (run("verify", str(path)), run("show", str(path), "--caller", evil)):
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
        assert isinstance(result.exception, SystemExit | None)


# show


@pytest.fixture
def history(tmp_path: Path) -> Path:
    freeze = {"operate": "freeze", "scope": "credential", "target": "sandbox/tenant-a", "why": "INC-1"}
    everything = {"operate": "thaw", "scope": "everything", "why": "over"}
    path = tmp_path / "vend.log"
    path.write_text(
        functions_log(
            trail(
                vend(1, -40),  # dead at 11:50
                vend(2, -10, REFUNDS),  # lives until 12:20
                vend(3, 5),
                vend(4, 6, credential="sandbox/tenant-b"),
                vend(5, 7, outcome="refused", tokens=[], error="not_authorized"),
                vend(6, 8, action="inspect", outcome="inspected"),
                vend(7, 9, action="operate", outcome="operated", tokens=[], brake=freeze),
                vend(8, 10, action="operate", outcome="operated", tokens=[], brake=everything, credential=None),
                vend(9, 11, action="operate", outcome="refused", tokens=[], brake=freeze),
                vend(10, 12, action="rotate", outcome="rotated", tokens=[], key={"made": "public-2"}),
                vend(
                    12,
                    13,
                    action="rotate",
                    outcome="rotated",
                    tokens=[],
                    key={"current": "public-2", "retired": "public-1"},
                ),
                vend(
                    13, 14, action="rotate", outcome="rotated", tokens=[], key={"deleted": "public-1", "why": "retired"}
                ),
                vend(11, 70, tokens=[{"sha256": fingerprint(n), "expires": NOON + 6000} for n in range(20, 25)]),
            )
        )
    )
    return path


def rows(*arguments: str) -> list[dict[str, Any]]:
    result = run("show", *arguments, "--json")
    assert result.exit_code == 0, result.output
    shown: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return shown


def test_show_tells_who_had_tokens_then_also_those_handed_out_before(history: Path) -> None:
    found = rows(
        str(history),
        "--credential",
        "sandbox/tenant-a",
        "--from",
        "2026-01-31T12:00:00Z",
        "--to",
        "2026-01-31T14:00:00+01:00",
    )
    assert [(row["time"][11:16], row["what"]) for row in found] == [
        ("11:50", "vended"),
        ("12:05", "vended"),
        ("12:08", "inspected"),
        ("12:09", "freeze"),
        ("12:10", "thaw"),
        ("12:12", "key made"),
        ("12:13", "key moved"),
        ("12:14", "key deleted"),
    ]
    assert found[0] == {
        "time": "2026-01-31T11:50:00Z",
        "what": "vended",
        "credential": "sandbox/tenant-a",
        "caller": REFUNDS,
        "door": "api",
        "count": 1,
        "policies": ["orders-tenant-a"],
        "tokens": [{"sha256": fingerprint(2), "expires": "2026-01-31T12:20:00Z"}],
        "requestId": "request-2",
        "correlationId": "request-2",
        "environment": found[0]["environment"],
        "sequence": 2,
        "file": str(history),
        "line": 2,
    }
    assert found[3]["brake"]["why"] == "INC-1"
    assert found[5]["key"] == {"made": "public-2"}


def test_show_finds_whose_a_token_was(history: Path) -> None:
    for wanted in (fingerprint(4), fingerprint(4)[:8], fingerprint(4).upper()):
        assert [row["requestId"] for row in rows(str(history), "--token-sha256", wanted)] == ["request-4"]
    assert rows(str(history), "--token-sha256", "f" * 64) == []


def test_show_looks_at_one_caller(history: Path) -> None:
    assert [row["requestId"] for row in rows(str(history), "--caller", REFUNDS)] == ["request-2"]


def test_the_table_shortens_what_is_long_and_shows_times_in_utc(history: Path) -> None:
    output = run("show", str(history), "--credential", "sandbox/tenant-a").output
    assert f"{fingerprint(20)[:12]}, 4 more" in output
    assert fingerprint(20) not in output
    assert "2026-01-31T13:10:00Z" in output
    assert "scope credential, target sandbox/tenant-a, why INC-1" in output
    assert "made public-2" in output


def test_show_says_in_words_when_there_is_nobody(history: Path) -> None:
    output = run("show", str(history), "--credential", "sandbox/nobody", "--caller", REFUNDS).output
    assert "nobody had such a token" in output


def test_a_hand_out_whose_record_could_not_be_written_was_none(tmp_path: Path) -> None:
    lines: list[str] = []

    def write(line: str) -> None:
        lines.extend(line.split("\n"))
        if len(lines) == 1:
            raise OSError

    one = AuditTrail(write)
    with pytest.raises(AuditUnavailable):
        one.write(vend(1, 0)[0], now=NOON)
    one.write(vend(2, 1)[0], now=NOON + 60)
    path = tmp_path / "a.log"
    path.write_text("\n".join(lines))
    shown = [(row["requestId"], row["what"]) for row in rows(str(path), "--credential", "sandbox/tenant-a")]
    assert shown == [("request-1", "not written"), ("request-2", "vended")]
    assert "1 could not be written" in run("verify", str(path)).output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--credential", "sandbox/tenant-a", "--from", "2026-01-31T12:00:00"],
        ["--credential", "sandbox/tenant-a", "--to", "2026-01-31"],
        ["--credential", "sandbox/tenant-a", "--to", "yesterday"],
        ["--credential", "sandbox/tenant-a", "--to", "0001-01-01T00:00:00+05:00"],
        ["--credential", "tenant-a"],
        ["--token-sha256", "abc"],
        ["--token-sha256", "x" * 64],
        [],
    ],
    ids=str,
)
def test_show_refuses_what_it_would_have_to_guess(arguments: list[str], history: Path) -> None:
    assert failed("show", str(history), *arguments).code == ExitCode.USAGE


def test_show_says_when_lines_could_not_be_read(history: Path) -> None:
    with history.open("a") as file:
        file.write('{"event": "audit", "caller": \n')
    result = CliRunner().invoke(app, ["show", str(history), "--caller", REFUNDS])
    assert "1 lines begin like a record and cannot be read" in result.stderr


def test_no_record_is_hidden_by_one_of_a_made_up_environment_that_calls_it_void(tmp_path: Path) -> None:
    (line,) = trail(vend(1, 0))
    made_up = {
        "event": "audit",
        "environment": "0" * 32,
        "sequence": 1,
        "instead": [hashlib.sha256(line.encode()).hexdigest()],
    }
    log = tmp_path / "vend.log"
    log.write_text(f"{line}\n{json.dumps(made_up)}\n")
    shown = json.loads(run("show", str(log), "--credential", "sandbox/tenant-a", "--json").output)
    assert [row["caller"] for row in shown["rows"]] == [ORDERS]
