"""`imburse-vending call`: vend a token and call Imburse with it, in one go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from imburse_vending import common, door, imburse_call
from imburse_vending.common import CommandError, ExitCode, Place
from imburse_vending.key_input import read_bytes

EXAMPLES = """[bold]Examples[/bold]

imburse-vending call GET /v1/identity/me sandbox/tenant-a --local

imburse-vending call POST /v1/orders sandbox/tenant-a --data order.json --header 'Idempotency-Key: 4711'

jq . order.json | imburse-vending call POST /v1/orders sandbox/tenant-a --data - | jq .orderId

Exit codes: 0 Imburse answered 2xx, 1 it answered something else or nothing, 2 called wrongly, 3 refused a token, 4 try later
(no token was to be had, or no answer to a GET).
"""


def call(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="GET, POST, ...")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path and query at the credential's own base URL.")],
    credential: common.Credential,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="The body; - is standard input. JSON unless a --header says so."),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="'NAME: VALUE'", help="Send this too.")
    ] = None,
    *,
    as_json: common.AsJson = False,
    local: common.Local = False,
    profile: common.Profile = None,
    region: common.Region = None,
    api: common.Api = None,
    function: common.Function = None,
    prove: common.Prove = False,
) -> None:
    """Vend a token, and call Imburse with it.

    The answer's body goes to standard output, its status to standard error. Redirects are not followed, nothing is
    repeated, and the token goes to the credential's own host only.
    """
    method, path = imburse_call.checked_method(method), imburse_call.checked_path(path)
    extra = imburse_call.checked_extra(header or [])
    body = None if data is None else read_bytes(data, "--data")
    if body is not None and not any(name.lower() == "content-type" for name in extra):
        extra["Content-Type"] = "application/json"
    source = door.source_of(Place.of(local=local, profile=profile, region=region), api, function, prove=prove)
    with common.progress("vending"), door.told():
        tokens = source.tokens(credential)
    if not tokens:
        raise CommandError("no token came", next_step="try again", code=ExitCode.TRY_LATER)
    with common.progress("waiting for Imburse"):
        reply = imburse_call.send(tokens[0], method, path, body=body, extra=extra)
    if as_json:
        common.emit(_document(reply), "", as_json=True)
    else:
        common.console(stderr=True).print(_status_line(reply), markup=False)
        _print_body(reply)
    if not 200 <= reply.status < 300:
        raise typer.Exit(ExitCode.FAILED)


def _status_line(reply: imburse_call.Reply) -> str:
    parts = [f"{reply.status} {common.printable(reply.reason)}", f"{reply.seconds * 1000:.0f} ms"]
    correlation_id = reply.headers.get("X-Correlation-ID")
    if correlation_id:
        parts.append(f"correlation id {common.printable(correlation_id)}")
    if 300 <= reply.status < 400:
        parts.append("a redirect, not followed")
    return ", ".join(parts)


def _document(reply: imburse_call.Reply) -> dict[str, Any]:
    try:
        body = reply.document()
    except (ValueError, RecursionError):
        body = reply.body.decode("utf-8", "replace")
    return {"status": reply.status, "correlationId": reply.headers.get("X-Correlation-ID"), "body": body}


def _print_body(reply: imburse_call.Reply) -> None:
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(reply.body)  # to the byte: the next program parses it
        sys.stdout.buffer.flush()
        return
    try:
        text = json.dumps(reply.document(), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        common.console().print(common.printable(reply.body.decode("utf-8", "replace")), markup=False)
        return
    common.console().print_json(common.printable(text))
