"""`imburse-vending`: all commands, put together."""

from __future__ import annotations

import inspect
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from imburse_vending import audit, call, check_header, doctor, get_token, policy, put_key, sign, when, whoami
from imburse_vending.common import CommandError, ExitCode, console, printable

_EXIT_CODES = (
    "Exit codes: 0 done, 1 it did not work or a check found something, 2 called wrongly, 3 the policy or AWS refuses,"
    " 4 a fault that passes: try later."
)
_CALLERS, _BY_HAND, _OPERATORS = "For callers", "Imburse's signature by hand, offline", "For operators"

app = typer.Typer(
    name="imburse-vending",
    help="Imburse access tokens from the token vending machine, and what its operators need.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # it would print the values of variables, keys among them
)


def _add(name: str, command: Callable[..., None], examples: str, panel: str, **settings: bool) -> None:
    """Paragraphs flow: typer would keep the line ends of the source."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    help_ = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    app.command(name, help=help_, epilog=examples, rich_help_panel=panel, context_settings=settings)(command)


_add("token", get_token.token, get_token.EXAMPLES, _CALLERS)
_add("whoami", whoami.whoami, whoami.EXAMPLES, _CALLERS)
_add("call", call.call, call.EXAMPLES, _CALLERS)
_add("doctor", doctor.doctor, doctor.EXAMPLES, _CALLERS)
_add("sign", sign.sign, sign.EXAMPLES, _BY_HAND)
_add("check", check_header.check, check_header.EXAMPLES, _BY_HAND)
_add("when", when.when, when.EXAMPLES, _BY_HAND, ignore_unknown_options=True)  # a number may be negative
_add("put-key", put_key.put_key, put_key.EXAMPLES, _OPERATORS)
app.add_typer(audit.app, name="audit", rich_help_panel=_OPERATORS)
app.add_typer(policy.app, name="policy", rich_help_panel=_OPERATORS)


def main() -> None:
    """The console script. Exit codes: imburse_vending.common.ExitCode."""
    try:
        # Left to itself, typer tells a wrong call in a box for people and ends.
        sys.exit(app(standalone_mode="--json" not in sys.argv))
    except CommandError as exc:
        _end(exc)
    except TyperException as exc:
        _end(CommandError(exc.format_message(), next_step=_help_of(exc), code=ExitCode.USAGE))
    except typer.Abort:
        _end(CommandError("interrupted"))
    except Exception as exc:  # noqa: BLE001 - a traceback and a foreign error's words can hold what must not be shown
        _end(_of_aws(exc) or _of_system(exc) or _bug(exc))


def _end(error: CommandError) -> NoReturn:
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": error.problem, "next": error.next_step}) + "\n")
    else:
        shown = console(stderr=True)
        shown.print(printable(f"error: {error.problem}"), style="red", markup=False)
        if error.next_step:
            shown.print(printable(f"next:  {error.next_step}"), markup=False)
    sys.exit(error.code)


def _of_aws(exc: Exception) -> CommandError | None:
    """What boto3 raised and no command expected: its code, and no word of the request."""
    if not type(exc).__module__.startswith("botocore."):
        return None
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as AwsConnectionError

    next_step = "imburse-vending doctor"
    if not isinstance(exc, ClientError):
        passes = isinstance(exc, (HTTPClientError, AwsConnectionError))
        code = ExitCode.TRY_LATER if passes else ExitCode.FAILED
        return CommandError(f"AWS cannot be asked ({type(exc).__name__})", next_step=next_step, code=code)
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = ExitCode.TRY_LATER if status == 429 or status >= 500 else ExitCode.REFUSED
    problem = f"AWS refuses {exc.operation_name}: {exc.response.get('Error', {}).get('Code')}"
    return CommandError(problem, next_step=next_step, code=code)


def _help_of(exc: TyperException) -> str:
    context = getattr(exc, "ctx", None)
    return f"{context.command_path} --help" if context else "imburse-vending --help"


def _of_system(exc: Exception) -> CommandError | None:
    """What the machine says, such as that the disk is full."""
    if type(exc).__module__ != "builtins" or not (isinstance(exc, OSError) and exc.strerror):
        return None
    return CommandError(f"this machine does not do it: {exc.strerror}")


def _bug(exc: Exception) -> CommandError:
    """Where, and nothing that it was about."""
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return CommandError(f"a bug: {type(exc).__name__}{where}", next_step="report it, with the command and not its data")


if __name__ == "__main__":
    main()
