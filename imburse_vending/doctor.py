"""`imburse-vending doctor`: what is wrong between you and a token, and what to do next."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from imburse_vending import common
from imburse_vending.common import ExitCode, Place
from imburse_vending.doctor_checks import Patient
from imburse_vending.doctor_walk import Check, Result, State, examine

EXAMPLES = """[bold]Examples[/bold]

imburse-vending doctor --local

imburse-vending doctor sandbox/tenant-a --vend    # the whole way, which costs a token

imburse-vending doctor --profile sandbox --api https://abc.execute-api.eu-west-1.amazonaws.com/sandbox

Exit codes: 0 nothing failed; else that of the first check that failed: 2 something is not set, 3 AWS or the policy refuses,
4 no connection, 1 the rest.
"""

_STYLES = {State.OK: "green", State.FAILED: "bold red", State.SKIPPED: "dim"}


def doctor(
    credential: Annotated[
        str | None,
        typer.Argument(metavar="CREDENTIAL", help="<environment>/<name>.", callback=common.known_form),
    ] = None,
    vend: Annotated[  # noqa: FBT002
        bool, typer.Option("--vend", help="Vend a token of CREDENTIAL and call Imburse with it: costs a token.")
    ] = False,
    *,
    as_json: common.AsJson = False,
    local: common.Local = False,
    profile: common.Profile = None,
    region: common.Region = None,
    api: common.Api = None,
    function: common.Function = None,
    prove: common.Prove = False,
) -> None:
    """Find what stands between you and a token.

    In the order in which things usually fail: AWS credentials, region, identity, address, network, clock, IAM, policy,
    Imburse. What needs a failed check is skipped. Without --vend no token is spent; the machine is asked for none, which it
    refuses and writes into its audit record.
    """
    place = Place.of(local=local, profile=profile, region=region)
    patient = Patient(place, api, function, credential, vend=vend, prove=prove)
    results: list[tuple[Check, Result]] = []
    found = examine(patient.checks())
    for upcoming in patient.checks():
        with contextlib.nullcontext() if as_json else common.progress(upcoming.name):
            results.append(next(found))
        if not as_json:
            check, result = results[-1]
            shown = common.verdict(result.state.value, _STYLES[result.state], check.name, result.says, result.fix)
            common.console().print(shown)
    failed = [result for _, result in results if result.state is State.FAILED]
    if as_json:
        checks = [
            {"check": check.name, "state": result.state.value, "says": result.says, "fix": result.fix}
            for check, result in results
        ]
        common.emit({"healthy": not failed, "checks": checks}, "", as_json=True)
    if failed:
        raise typer.Exit(failed[0].code or ExitCode.FAILED)
