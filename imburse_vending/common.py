"""What every command shares: where it talks to, how it prints, and how it ends."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

import typer

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from rich.console import Console, RenderableType
    from rich.text import Text

LOCAL_VARIABLES = Path(".local/env")  # written by `make serve`
STACK_NAME = "imburse-vending"


class ExitCode(IntEnum):
    """What a script may look at."""

    DONE = 0
    FAILED = 1  # it did not work, or a check found something
    USAGE = 2  # called wrongly
    REFUSED = 3  # the policy, or AWS, does not let this caller
    TRY_LATER = 4  # a fault that passes: throttled, no connection, 5xx


class CommandError(Exception):
    """How a command ends that could not do its work: what is wrong, and what to do next. Neither holds a secret."""

    def __init__(self, problem: str, *, next_step: str | None = None, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step
        self.code = code


def known_form(text: str | None) -> str | None:
    """A credential's id as it is. Raises typer.BadParameter, which names the rule."""
    from imburse_auth.credential import CredentialId

    if text is not None:
        try:
            CredentialId.parse(text)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from None
    return text


_WHERE = "Where it talks to"

# The options that many commands have, by one name and one help each.
Local = Annotated[
    bool,
    typer.Option("--local", help="Talk to the stack of `make serve`, as the caller it made.", rich_help_panel=_WHERE),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="AWS profile, as for the AWS CLI.", rich_help_panel=_WHERE),
]
Region = Annotated[
    str | None,
    typer.Option("--region", metavar="NAME", help="AWS region, as for the AWS CLI.", rich_help_panel=_WHERE),
]
Api = Annotated[
    str | None,
    typer.Option(
        "--api", metavar="URL", help="The vending API, the output ApiUrl; else $VENDING_API.", rich_help_panel=_WHERE
    ),
]
Function = Annotated[
    str | None,
    typer.Option(
        "--function",
        metavar="NAME:ALIAS",
        help="Invoke this function by your alias instead; else $VENDING_FUNCTION.",
        rich_help_panel=_WHERE,
    ),
]
Prove = Annotated[
    bool,
    typer.Option(
        "--prove", help="Prove your role to the function: it is the caller then, not the alias.", rich_help_panel=_WHERE
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Credential = Annotated[
    str,
    typer.Argument(
        metavar="CREDENTIAL", help="<environment>/<name>, for example sandbox/tenant-a.", callback=known_form
    ),
]


@dataclass(frozen=True)
class Place:
    """Which AWS, as whom: the variables in force, a profile, a region."""

    environ: Mapping[str, str]
    profile: str | None = None
    region: str | None = None
    local: bool = False

    @classmethod
    def of(cls, *, local: bool = False, profile: str | None = None, region: str | None = None) -> Place:
        """The local stack's variables, or this shell's. Raises CommandError."""
        if not local:
            return cls(os.environ, profile, region)
        if profile is not None:
            raise CommandError("--local and --profile exclude each other", code=ExitCode.USAGE)
        return cls(_exported(_local_variables()), None, region, local=True)

    def variable(self, name: str) -> str | None:
        """A variable's value, None if it is empty."""
        return self.environ.get(name) or None

    def session(self) -> boto3.Session:
        """A session with this place's credentials, none of which is looked up yet. Raises CommandError."""
        import boto3
        from botocore.exceptions import ProfileNotFound

        if self.local:
            return boto3.Session(
                self.environ["AWS_ACCESS_KEY_ID"],
                self.environ["AWS_SECRET_ACCESS_KEY"],
                region_name=self.region or self.environ["AWS_DEFAULT_REGION"],
            )
        try:
            session = boto3.Session(profile_name=self.profile, region_name=self.region)
        except ProfileNotFound as exc:
            raise CommandError(str(exc), next_step="aws configure list-profiles", code=ExitCode.USAGE) from exc
        region = self.variable("AWS_REGION")
        if region and not session.region_name:  # botocore does not read it, and containers have it
            return boto3.Session(profile_name=self.profile, region_name=region)
        return session

    @overload
    def client(self, service: Literal["lambda"], *, attempts: int = 2) -> LambdaClient: ...
    @overload
    def client(self, service: Literal["secretsmanager"], *, attempts: int = 2) -> SecretsManagerClient: ...
    @overload
    def client(self, service: str, *, attempts: int = 2) -> Any: ...  # noqa: ANN401 - boto3 has a class a service
    def client(self, service: str, *, attempts: int = 2) -> Any:
        """A client with time-outs, and `attempts` in all. Raises CommandError where no region is set."""
        from botocore.config import Config
        from botocore.exceptions import NoRegionError

        # The local stack's own endpoint is found by boto3's variables, which are this process's only by `. .local/env`.
        # pragma: allowlist nextline secret (the service's name)
        variable = "AWS_ENDPOINT_URL_" + {"secretsmanager": "SECRETS_MANAGER"}.get(service, service.upper())
        if self.local and self.variable(variable) is None:  # never AWS itself, with keys that are made up
            raise CommandError(f"the local stack has no {service}", next_step="make serve again, from this checkout")
        settings = Config(
            connect_timeout=5, read_timeout=35, retries={"total_max_attempts": attempts, "mode": "standard"}
        )
        try:
            return self.session().client(  # type: ignore[call-overload]
                service, endpoint_url=self.environ.get(variable) if self.local else None, config=settings
            )
        except NoRegionError as exc:
            raise CommandError(
                "no AWS region is set", next_step="--region, or AWS_REGION", code=ExitCode.USAGE
            ) from exc


def emit(data: object, shown: RenderableType, *, as_json: bool) -> None:
    """Print `data` as one JSON document, or `shown` for people (colour on a terminal only)."""
    if as_json:
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    else:
        console().print(shown)


def console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error, for people: tables are not cut where it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 500, soft_wrap=True, highlight=False)


def pairs(rows: Mapping[str, object]) -> Text:
    """Names and values, one a line, for `emit`: whatever a value holds is text and not markup, and can be copied whole."""
    from rich.text import Text

    width = max(map(len, rows)) + 2
    shown = Text()
    for name, value in rows.items():
        first, *more = str(value).split("\n")
        shown.append(name.ljust(width), "bold").append(first + "\n")
        for line in more:
            shown.append(" " * width + line + "\n")
    shown.rstrip()
    return shown


def verdict(mark: str, style: str, name: str, says: str, fix: str | None = None) -> Text:
    """One thing that was looked at, and below it what to do; the same shape for each command that looks."""
    from rich.text import Text

    line = Text.assemble((f"{mark:<9}", style), (f"{name:<17}", "bold"), printable(says))
    return line if fix is None else line.append("\n" + " " * 26).append("-> ", "bold yellow").append(fix)


def note(text: str) -> None:
    """Say something beside the output, on standard error."""
    console(stderr=True).print(f"note: {text}", style="yellow", markup=False)


def progress(what: str) -> AbstractContextManager[object]:
    """Say on a terminal's standard error what is being waited for, for as long as it lasts; elsewhere nothing."""
    if not sys.stderr.isatty():
        return nullcontext()
    return console(stderr=True).status(what)


def printable(text: str) -> str:
    """Text of somebody else's making as a terminal may show it: nothing in it that moves the cursor or hides."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)


def _local_variables() -> str:
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / LOCAL_VARIABLES
        if path.is_file():
            # It says where keys are put, and a folder above may be one that all may write to, such as /tmp.
            if path.stat().st_uid != os.getuid():
                raise CommandError(f"{path} is somebody else's, so what it says is not believed", code=ExitCode.USAGE)
            return path.read_text(encoding="utf-8")
    raise CommandError(
        f"there is no {LOCAL_VARIABLES} here",
        next_step="make serve, in another shell, from this checkout",
        code=ExitCode.USAGE,
    )


def _exported(text: str) -> dict[str, str]:
    """`export NAME=value` lines, to a mapping."""
    lines = (line.removeprefix("export ").partition("=") for line in text.splitlines() if line.startswith("export "))
    return {name: value for name, _, value in lines}
