"""`imburse-vending token`: a token on standard output, in the form that the next program reads."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer

from imburse_vending import common, door
from imburse_vending.common import CommandError, ExitCode, Place
from imburse_vending.token_forms import Form, written

EXAMPLES = """[bold]Examples[/bold]

imburse-vending token sandbox/tenant-a --local

curl -K <(imburse-vending token sandbox/tenant-a --as curl) https://sandbox-api.imbursepayments.com/v1/identity/me

eval "$(imburse-vending token sandbox/tenant-a --as export)"    # IMBURSE_AUTHORIZATION, IMBURSE_ACCOUNT_ID, ...

imburse-vending token sandbox/tenant-a --count 5 --as json > tokens.json    # after umask 077

Exit codes: 0 done, 2 called wrongly, 3 refused, 4 try later (also when fewer came than were asked for), 1 the rest.
"""


def token(
    credential: common.Credential,
    form: Annotated[Form, typer.Option("--as", help="How to print it.")] = Form.HEADERS,
    count: Annotated[int, typer.Option(min=1, max=500, help="How many; each is good for one call.")] = 1,
    lifetime: Annotated[
        int, typer.Option("--lifetime", min=0, max=1500, metavar="SECONDS", help="What it must have left to live.")
    ] = 300,
    *,
    as_json: common.AsJson = False,
    local: common.Local = False,
    profile: common.Profile = None,
    region: common.Region = None,
    api: common.Api = None,
    function: common.Function = None,
    prove: common.Prove = False,
) -> None:
    """Vend a token, and print what to send with it.

    It is good for [bold]one[/bold] call within half an hour. It goes to standard output and nowhere else: into a pipe, a
    file of yours, or `curl -K`. Never put it onto a command line, where the shell's history and every `ps` would have it.
    """
    form = Form.JSON if as_json else form
    if count > 1 and form in (Form.EXPORT, Form.CURL):
        raise CommandError(f"--as {form.value} is for one token", next_step="--as json", code=ExitCode.USAGE)
    source = door.source_of(Place.of(local=local, profile=profile, region=region), api, function, prove=prove)
    with common.progress(f"vending {count}" if count > 1 else "vending"), door.told():
        tokens = source.tokens(credential, count, minimum_lifetime_seconds=lifetime)
    if not tokens:
        raise CommandError("no token came", next_step="try again", code=ExitCode.TRY_LATER)
    sys.stdout.write(written(tokens, form, many=count > 1))
    sys.stdout.flush()
    if sys.stdout.isatty():
        until = datetime.fromtimestamp(max(one.expires for one in tokens)).astimezone()
        common.note(f"this is in your terminal's scroll-back now; it dies when used once, or at {until:%H:%M:%S}")
    if len(tokens) < count:
        common.note(f"{count} were asked for, {len(tokens)} came")
        raise typer.Exit(ExitCode.TRY_LATER)
