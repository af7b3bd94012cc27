"""Where the policies are: each stage's file in this checkout, or any other."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imburse_vending.common import CommandError, ExitCode

if TYPE_CHECKING:
    from vending.access.rules import RuleBook

FOLDER = Path("layers/access_policy/access_policy")
SCHEMA = "schema.cedarschema"
ALL = "all"


@dataclass(frozen=True)
class PolicyFile:
    """The text of a policy and of its schema."""

    path: Path
    text: str
    schema: str

    @classmethod
    def read(cls, path: Path) -> PolicyFile:
        """Read it, with the schema beside it or else the checkout's. Raises CommandError."""
        beside = path.with_name(SCHEMA)
        try:
            schema = beside if beside.is_file() else checkout() / FOLDER / SCHEMA
            return cls(path, path.read_text(encoding="utf-8"), schema.read_text(encoding="utf-8"))
        except OSError as exc:
            raise CommandError(f"{path}: {exc.strerror}", code=ExitCode.USAGE) from exc
        except UnicodeDecodeError as exc:
            raise CommandError(f"{path}: is not UTF-8 text", code=ExitCode.USAGE) from exc

    @property
    def name(self) -> str:
        """The file's name, `dev.cedar`."""
        return self.path.name

    def book(self) -> RuleBook:
        """Its rules. Raises CommandError for a policy that is not sound."""
        from vending.access.rules import RuleBook

        try:
            return RuleBook(self.text, self.schema)
        except ValueError as exc:
            raise CommandError(f"{self.path}: {exc}", next_step=f"imburse-vending policy check {self.path}") from exc


def chosen(policy: Path | None, stage: str | None) -> list[PolicyFile]:
    """That file; or the stage's, or with `all` every stage's; else dev's. Raises CommandError."""
    if policy is not None:
        if stage is not None:
            raise CommandError("--policy and --stage exclude each other", code=ExitCode.USAGE)
        return [PolicyFile.read(policy)]
    files = stage_files()
    wanted = files if stage == ALL else [path for path in files if path.stem == (stage or "dev")]
    if not wanted:
        stages = ", ".join([*(path.stem for path in files), ALL])
        raise CommandError("there is no such stage", next_step=f"--stage: one of {stages}", code=ExitCode.USAGE)
    return [PolicyFile.read(path) for path in wanted]


def stage_files() -> list[Path]:
    """Every stage's file, by name. Raises CommandError outside a checkout."""
    return sorted((checkout() / FOLDER).glob("*.cedar"))


def environments() -> Collection[str] | None:
    """The environments that have a host by `template.yaml` or `samconfig.toml`; None where that cannot be seen."""
    found: set[str] = set()
    try:
        template = (checkout() / "template.yaml").read_text(encoding="utf-8")
        overrides = (checkout() / "samconfig.toml").read_text(encoding="utf-8")
    except OSError:
        return None
    default = re.search(r"^  ImburseHosts:\n(?:    .*\n)*?    Default: (\S+)$", template, re.MULTILINE)
    for hosts in [*([default[1]] if default else []), *re.findall(r"ImburseHosts=([^\s\"']+)", overrides)]:
        found |= {entry.partition("=")[0] for entry in hosts.split(",")}
    return found or None


def checkout() -> Path:
    """The folder that holds the policies: this one or one above it, else where this program lies. Raises CommandError."""
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).parent.parent):
        if (folder / FOLDER).is_dir():
            # As short as people would write it.
            return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    raise CommandError(
        f"there is no {FOLDER} here", next_step="name the FILE, or go to a checkout", code=ExitCode.USAGE
    )
