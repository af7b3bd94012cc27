"""`imburse-vending audit`: whether the records are all there and unchanged, and who had tokens when."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from imburse_vending import audit_shown, audit_table, common
from imburse_vending.audit_chain import Expected, check
from imburse_vending.audit_file import AuditFile, scan
from imburse_vending.audit_shown import Wanted
from imburse_vending.common import CommandError, ExitCode

app = typer.Typer(
    help="The audit trail: check that it is whole, and ask it who had which tokens.", no_args_is_help=True
)

_FILE_HELP = (
    "The functions' log as it was saved: .local/functions.log, JSON lines, an S3 export (also .gz), or the JSON of"
)
_FILE_HELP += " `aws logs filter-log-events`, `get-log-events` or `get-query-results`."
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help=_FILE_HELP)]

_VERIFY = """[bold]Examples[/bold]

imburse-vending audit verify .local/functions.log

imburse-vending audit verify vend.json api.json --partial --json > seen.json    # keep it where the log's keepers cannot write

imburse-vending audit verify vend.json api.json --partial --expect seen.json    # later: is what was seen still the same?

Exit codes: 0 nothing was found, 1 something was, 2 called wrongly.
"""
_SHOW = """[bold]Examples[/bold]

imburse-vending audit show .local/functions.log --credential sandbox/tenant-a

imburse-vending audit show vend.json --credential sandbox/tenant-a --from 2026-01-31T11:00:00Z --to 2026-01-31T12:00:00Z

imburse-vending audit show vend.json --token-sha256 $(printf %s "$TOKEN" | sha256sum | cut -c1-64)    # whose was it?
"""
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")


@app.command(epilog=_VERIFY)
def verify(
    files: Files,
    expect: Annotated[
        Path | None,
        typer.Option(
            "--expect", metavar="FILE", help="What --json said earlier: the records seen then must be here, unchanged."
        ),
    ] = None,
    *,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="The files begin in the middle: earlier records are missing, and rightly so."),
    ] = False,
    as_json: common.AsJson = False,
) -> None:
    """Follow the chain of each execution environment, and say which records are changed, missing, added or unreadable.

    Other log lines in between and environments side by side are fine; so are lines in any order, since records are numbered.
    """
    scanned = _scanned(files)
    chains, findings = check(scanned, expected=_expected(expect) if expect else None, partial=partial)
    data = {
        "records": sum(len(file.lines) for file in scanned),
        "environments": [audit_table.environment(chain) for chain in chains],
        "findings": [audit_table.finding(finding) for finding in findings],
    }
    common.emit(data, audit_table.verified(data, findings), as_json=as_json)
    if findings:
        raise typer.Exit(ExitCode.FAILED)


@app.command(epilog=_SHOW)
def show(
    files: Files,
    credential: Annotated[
        str | None, typer.Option("--credential", metavar="CREDENTIAL", help="Of this one, like sandbox/tenant-a.")
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="From then, with what was handed out before and lived still."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Handed out by then.")] = None,
    caller: Annotated[str | None, typer.Option("--caller", help="By this one: a role's ARN, or alias/<name>.")] = None,
    token_sha256: Annotated[
        str | None,
        typer.Option("--token-sha256", metavar="HEX", help="This token, or how its SHA-256 begins: 8 to 64 digits."),
    ] = None,
    *,
    as_json: common.AsJson = False,
) -> None:
    """Who had tokens of a credential between then and then; and what was done to its key, and by the brake.

    A TIME is ISO 8601 with its offset, like 2026-01-31T12:00:00Z; without one it is refused. All that is shown is in UTC.
    It believes what it reads: ask `audit verify` first.
    """
    if credential is None and caller is None and token_sha256 is None:
        raise CommandError(
            "it is not said what to look for", next_step="--credential, --caller or --token-sha256", code=ExitCode.USAGE
        )
    if credential is not None:
        _check_credential(credential)
    if token_sha256 is not None and not _FINGERPRINT.fullmatch(token_sha256.lower()):
        raise CommandError("--token-sha256: must be 8 to 64 hexadecimal digits", code=ExitCode.USAGE)
    fingerprint = token_sha256.lower() if token_sha256 else None
    wanted = Wanted(credential, _moment("--from", begin), _moment("--to", end), caller, fingerprint)
    scanned = _scanned(files)
    found = audit_shown.rows(scanned, wanted)
    _warn(scanned)
    common.emit({"rows": [audit_table.row(one) for one in found]}, audit_table.shown(found), as_json=as_json)


def _scanned(paths: list[Path]) -> list[AuditFile]:
    files = [scan(path) for path in paths]
    if not any(file.lines or file.unreadable for file in files):
        raise CommandError(
            "there is no audit record in there",
            next_step="see `imburse-vending audit verify --help` for what can be read",
        )
    return files


def _check_credential(text: str) -> None:
    """A slip in it would otherwise read as: nobody had tokens."""
    from imburse_auth.credential import CredentialId

    try:
        CredentialId.parse(text)
    except ValueError as exc:
        raise CommandError(f"--credential: {exc}", code=ExitCode.USAGE) from None


def _expected(path: Path) -> dict[str, Expected]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {one["environment"]: Expected(one["last"], one["sha256"]) for one in document["environments"]}
    except OSError as exc:
        raise CommandError(f"{path}: {exc.strerror}", code=ExitCode.USAGE) from exc
    except (ValueError, LookupError, TypeError) as exc:
        problem = f"{path}: is not what `audit verify --json` wrote"
        raise CommandError(problem, next_step="imburse-vending audit verify --help", code=ExitCode.USAGE) from exc


def _warn(files: Iterable[AuditFile]) -> None:
    unreadable = sum(len(file.unreadable) for file in files)
    if unreadable:
        common.note(f"{unreadable} lines begin like a record and cannot be read: see `imburse-vending audit verify`")


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    problem = f"{option}: must be an ISO 8601 time with its offset, like 2026-01-31T12:00:00Z"
    raise CommandError(problem, code=ExitCode.USAGE)
