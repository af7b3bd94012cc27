"""Where cold starts are measured: a build of the functions, peers laid out beside it, and the runtime that Lambda brings."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.lambda_variables import function_variables
from local.stack import ACCOUNT_ID, PROJECT, REGION, STACK_NAME, STAGE
from local.template import Application, FunctionSpec, read_application

PEERS = Path(__file__).with_name("peers")
# What a function that uses requests and Powertools bundles; what the build does not have, the interpreter must.
BUNDLED = (
    *("requests", "urllib3", "certifi", "idna", "charset_normalizer"),
    *("aws_lambda_powertools", "jmespath", "typing_extensions.py"),
)
# Of each peer its module, and whether it is compiled.
PEER_MODULES = {
    "empty": ("empty", True),
    "one_client": ("one_client", True),
    "usual": ("usual", True),
    "tutorial": ("tutorial", False),
    "tutorial_compiled": ("tutorial", True),
}
POLICY_LAYER = {"/opt/access_policy": PROJECT / "layers/access_policy/access_policy"}


class NotBuilt(Exception):
    """There is no build that this machine can run; the message has the command that makes one."""


@dataclass(frozen=True)
class Place:
    """A build as `sam build` lays it out, and an interpreter with awslambdaric and boto3."""

    build: Path
    python: Path

    @classmethod
    def standard(cls) -> Place:
        """What `make build` made and `requirements/install runtime` installed, compiled like /var/runtime. Raises NotBuilt."""
        place = cls(PROJECT / ".aws-sam/build", PROJECT / ".tools/runtime/bin/python")
        check(place.build)
        if not place.python.exists():
            raise NotBuilt("the runtime that Lambda brings is not here: requirements/install runtime")
        compile_all(place.python, *place.python.parents[1].glob("lib/python3*/site-packages"))
        return place

    @property
    def layer(self) -> Path:
        """What is at /opt/python on Lambda."""
        return self.build / "ImburseAuthLayer/python"


@dataclass(frozen=True)
class Subject:
    """A function that can be started: `task` is its /var/task, `path` where its other modules are found."""

    spec: FunctionSpec
    task: Path
    path: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    def environ(self, home: Path) -> dict[str, str]:
        """The variables of its process: those of the template, and what this machine needs."""
        extra = {**self.variables, "PYTHONDONTWRITEBYTECODE": "1"}  # /var/task cannot be written to
        if self.path is not None:
            extra["PYTHONPATH"] = str(self.path)
        made = function_variables(
            self.spec, "1", region=REGION, task_root=self.task, home=home, layers=POLICY_LAYER, extra=extra
        )
        made.pop("PYTHONPYCACHEPREFIX", None)
        return made


def check(build: Path) -> None:
    """Raises NotBuilt unless the build is there, for this machine's processor, and compiled."""
    command = f"make build ARCHITECTURE={platform.machine()}"
    missing = [name for name in application().functions if not (build / name / "handlers").is_dir()]
    if missing:
        raise NotBuilt(f"{', '.join(missing)}: not built; {command}")
    tags = [
        line.removeprefix("Tag: ").rpartition("-")[2]
        for wheel in build.glob("*/*.dist-info/WHEEL")
        for line in wheel.read_text().splitlines()
        if line.startswith("Tag: ")
    ]
    if any(tag != "any" and not tag.endswith(platform.machine()) for tag in tags):
        raise NotBuilt(f"built for another processor than this machine's; {command}")
    if not next(build.glob("*/vending/__pycache__/*.pyc"), None):
        raise NotBuilt(f"not byte-compiled, as what is deployed is; {command}")


def application(imburse_url: str = "https://imburse.test") -> Application:
    """The template, with its sandbox at that base URL."""
    return read_application(
        PROJECT / "template.yaml",
        {"Stage": STAGE, "ImburseHosts": f"sandbox={imburse_url}"},
        stack_name=STACK_NAME,
        region=REGION,
        account_id=ACCOUNT_ID,
    )


def functions(place: Place, specs: Mapping[str, FunctionSpec], variables: Mapping[str, str]) -> dict[str, Subject]:
    """Our functions as built, by logical id."""
    return {name: Subject(spec, place.build / name, place.layer, variables) for name, spec in specs.items()}


def peers(place: Place, folder: Path, variables: Mapping[str, str]) -> dict[str, Subject]:
    """The peers, laid out in `folder`: compiled like ours, but for the tutorial, which is both so and as `sam build` leaves it."""
    made = {}
    for name, (module, compiled) in PEER_MODULES.items():
        task = folder / ("compiled" if compiled else "plain")
        if not task.exists():
            _bundle(place, task)
            if compiled:
                compile_all(place.python, task)
        spec = FunctionSpec(
            name, name, f"{module}.handler", timeout_seconds=30, memory_mb=1024, environment={}, aliases=()
        )
        made[name] = Subject(spec, task, variables=variables)
    return made


def compile_all(python: Path, *folders: Path) -> None:
    """Compile what is not compiled yet, beside the sources."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    subprocess.run([python, "-m", "compileall", "-q", *folders], check=True, env=environ)


def _bundle(place: Place, task: Path) -> None:
    shutil.copytree(PEERS, task, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUNDLED:
        for source in (place.build / "VendFunction" / name, place.layer / name):
            if source.is_dir():
                shutil.copytree(source, task / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            elif source.is_file():
                shutil.copyfile(source, task / name)
