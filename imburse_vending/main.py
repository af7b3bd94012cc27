"""`imburse-vending`: all commands, put together."""

from __future__ import annotations

import json
import sys

import typer

from imburse_vending.common import CommandError, console

app = typer.Typer(
    name="imburse-vending",
    help="Imburse access tokens from the token vending machine, and what its operators need.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # it would print the values of variables, keys among them
)


@app.callback()
def _root() -> None:
    """Keeps `imburse-vending COMMAND` a command of several while there is only one."""


def main() -> None:
    """The console script. Exit codes: imburse_vending.common.ExitCode."""
    try:
        app()
    except CommandError as exc:
        if "--json" in sys.argv:
            sys.stdout.write(json.dumps({"error": exc.problem, "next": exc.next_step}) + "\n")
        else:
            shown = console(stderr=True)
            shown.print(f"error: {exc.problem}", style="red", markup=False)
            if exc.next_step:
                shown.print(f"next:  {exc.next_step}", markup=False)
        sys.exit(exc.code)


if __name__ == "__main__":
    main()
