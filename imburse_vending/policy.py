"""`imburse-vending policy`: check the rules, ask them, and replay the past against new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imburse_vending import audit_file, common
from imburse_vending.common import CommandError, ExitCode
from imburse_vending.policy_files import PolicyFile, chosen, environments, stage_files
from imburse_vending.policy_options import (
    Account,
    Action,
    Expected,
    OptionalCredential,
    Policy,
    Stage,
    Via,
    question_of,
    resource_of,
)

app = typer.Typer(help="The access policy: what is wrong with it, who may what, and why.", no_args_is_help=True)


_CHECK = """[bold]Examples[/bold]

imburse-vending policy check

imburse-vending policy check new.cedar --strict

Exit codes: 0 no errors, 1 errors (with --strict also warnings), 2 called wrongly.
"""
_EXPLAIN = """[bold]Examples[/bold]

imburse-vending policy explain --caller arn:aws:iam::123456789012:role/orders --action vend --credential sandbox/tenant-a

imburse-vending policy explain --caller alias/settlement-job --credential sandbox/tenant-a --count 11

imburse-vending policy explain --caller arn:aws:iam::123456789012:role/operators --action operate    # callers and everything

Exit codes: 0 allowed, 3 denied; with --expect: 0 if it is so, 1 if not. 2 called wrongly.
"""
_WHO = """[bold]Examples[/bold]

imburse-vending policy who-can vend sandbox/tenant-a

imburse-vending policy who-can vend production/tenant-a --stage production

imburse-vending policy who-can operate    # the brake of callers and everything
"""
_REPLAY = """[bold]Examples[/bold]

imburse-vending policy replay --audit .local/functions.log --against new.cedar

imburse-vending policy replay --audit vend.json --audit api.json --against new.cedar --before old.cedar --fail-on-loss

Exit codes: 0 done, 1 with --fail-on-loss if somebody loses access, 2 called wrongly.
"""


@app.command(epilog=_CHECK)
def check(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Else every stage's.")] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Find what is wrong: syntax, schema, budgets, ids, rules that can never matter, and permits that are wide open."""
    from imburse_vending import policy_check, policy_shown

    known = environments() if files is None else None
    policies = [PolicyFile.read(path) for path in files or stage_files()]
    found = {str(one.path): policy_check.findings(one.text, one.schema, known) for one in policies}
    data = [{"file": name, "findings": [one.as_dict() for one in findings]} for name, findings in found.items()]
    common.emit({"files": data}, policy_shown.checked(found), as_json=as_json)
    if any(strict or one.level == "error" for findings in found.values() for one in findings):
        raise typer.Exit(ExitCode.FAILED)


@app.command(epilog=_EXPLAIN)
def explain(
    caller: Annotated[str, typer.Option("--caller", metavar="ARN", help="A role, user or session, or alias/<name>.")],
    action: Annotated[Action, typer.Option("--action")] = Action.VEND,
    credential: Annotated[
        str | None,
        typer.Option(
            "--credential", help="<environment>/<name>; none: System, to operate.", callback=common.known_form
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=500, help="How many tokens.")] = 1,
    via: Annotated[Via | None, typer.Option("--via", help="The door; else the caller's usual one.")] = None,
    source_ip: Annotated[str | None, typer.Option("--source-ip", help="From there, through the API.")] = None,
    vpce: Annotated[str | None, typer.Option("--vpce", help="Through this endpoint of the API.")] = None,
    policy: Policy = None,
    stage: Stage = None,
    account: Account = None,
    expect: Annotated[Expected | None, typer.Option("--expect", help="Fail if it is not so, in any file.")] = None,
    *,
    as_json: common.AsJson = False,
) -> None:
    """Say what the policy decides and by which rule; of a denial, which change would be allowed and which rule is missing."""
    from rich.console import Group

    from imburse_vending import policy_shown
    from imburse_vending.policy_ask import own_account
    from imburse_vending.policy_explain import explain as explain_one

    resource = resource_of(action, credential)
    answers = []
    for file in chosen(policy, stage):
        book = file.book()
        own = account or own_account(book.rules)
        question = question_of(caller, own, action, resource, count, via, source_ip, vpce)
        answers.append((file, explain_one(book, file.text, file.schema, question, own)))
    as_expected = [said.decision.allowed is (expect is Expected.ALLOWED) for _, said in answers]
    shown = [
        policy_shown.explained(file, said, caller, brief=expect is not None and met)
        for (file, said), met in zip(answers, as_expected, strict=True)
    ]
    data = {"answers": [policy_shown.explained_json(file, said) for file, said in answers]}
    common.emit(data, Group(*shown), as_json=as_json)
    if expect is None and not all(said.decision.allowed for _, said in answers):
        raise typer.Exit(ExitCode.REFUSED)
    if expect is not None and not all(as_expected):
        common.note(f"this was expected to be {expect.value}")
        raise typer.Exit(ExitCode.FAILED)


@app.command("who-can", epilog=_WHO)
def who_can(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="vend, inspect or operate.")],
    credential: OptionalCredential = None,
    policy: Policy = None,
    stage: Stage = None,
    account: Account = None,
    *,
    as_json: common.AsJson = False,
) -> None:
    """List who may, by asking Cedar for every caller that the rules name or mean, with each door, count and endpoint."""
    from imburse_vending import policy_shown, policy_who
    from imburse_vending.policy_ask import own_account

    resource = resource_of(action, credential)
    (file, *more) = chosen(policy, stage)
    if more:
        raise CommandError("who-can asks one file", next_step="--stage NAME", code=ExitCode.USAGE)
    book = file.book()
    own = account or own_account(book.rules)
    found = list(policy_who.who_can(book, action, resource, own))
    common.emit({"who": [one.as_dict() for one in found]}, policy_shown.who(found), as_json=as_json)
    if account is None and (remark := policy_shown.who_named_account(book, own)):
        common.note(remark)


@app.command(epilog=_REPLAY)
def replay(
    audit: Annotated[list[Path], typer.Option("--audit", metavar="FILE", help="Audit records; more than once.")],
    against: Annotated[Path, typer.Option("--against", metavar="FILE", help="The new policy.")],
    before: Annotated[
        Path | None,
        typer.Option("--before", metavar="FILE", help="The policy of that time: it tells forbids from the brake."),
    ] = None,
    account: Account = None,
    *,
    fail_on_loss: Annotated[bool, typer.Option("--fail-on-loss", help="Exit 1 if somebody loses access.")] = False,
    as_json: common.AsJson = False,
) -> None:
    """Run past requests against a changed policy, and list who gains and who loses access. Budgets are not counted again."""
    from imburse_vending import policy_shown
    from imburse_vending.policy_ask import own_account
    from imburse_vending.policy_replay import replay as replay_all

    book = PolicyFile.read(against).book()
    own = account or own_account(book.rules)
    then = PolicyFile.read(before).book().policy if before else None
    records = [line.record for path in audit for line in audit_file.read(path)]
    if not records:
        raise CommandError("there is no audit record in there", code=ExitCode.USAGE)
    result = replay_all(records, book.policy, own, before=then)
    data = {
        "records": len(records),
        "replayed": result.replayed,
        "losses": [one.as_dict() for one in result.differences if one.change == "loses"],
        "gains": [one.as_dict() for one in result.differences if one.change == "gains"],
        "notReplayable": dict(result.skipped),
    }
    common.emit(data, policy_shown.replayed(result), as_json=as_json)
    if account is None and (remark := policy_shown.who_named_account(book, own)):
        common.note(remark)
    if fail_on_loss and data["losses"]:
        raise typer.Exit(ExitCode.FAILED)
