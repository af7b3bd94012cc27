"""A copy of the tree, in which modules are broken and their tests run: the working tree itself is never mutated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.forks import Forks
from tests.mutation.subjects import Subject

ROOT = Path(__file__).parents[2]
# Before the folders that the editable install puts on the path, which are those of the working tree.
_IMPORTED_FROM = ("layers/imburse_auth/src", "functions", ".")
# No plugin but the one that keeps unit tests off the network, and Hypothesis' own, which makes it try the same examples each time;
# plain asserts, since nobody reads why a mutant died.
_PYTEST = (
    *("-x", "-q", "--tb=line", "--assert=plain", "-p", "pytest_socket", "-p", "no:cacheprovider"),
    *("-p", "hypothesispytest", "--hypothesis-profile=mutation"),
)
_CHECK_SECONDS = 120.0
_MARK = "this is the module that the tests import"


class Unfit(Exception):
    """The copy cannot tell a mutant from a sound module."""


@dataclass(frozen=True)
class Workspace:
    """The copy. Everything runs in `folder`, with `environ`."""

    folder: Path

    @classmethod
    def copied_to(cls, folder: Path, root: Path = ROOT) -> Workspace:
        """Copy what git has, or would add, as it is in the working tree now."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root, capture_output=True, check=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (source := root / name).is_file():
                (target := folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        # What makes cosmic-ray find our operators and our way to run tests, without installing anything.
        (plugin := folder / "mutation_operators-1.dist-info").mkdir()
        (plugin / "entry_points.txt").write_text(
            "[cosmic_ray.operator_providers]\nours = tests.mutation.operators:Provider\n"
            "[cosmic_ray.distributors]\nforks = tests.mutation.distributor:Distributor\n"
        )
        return cls(folder)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a test run: no module compiled before a mutation is taken for the one after it."""
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(str(self.folder / place) for place in _IMPORTED_FROM),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPYCACHEPREFIX": str(self._compiled),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / ".hypothesis"),
        }

    def arguments(self, subject: Subject) -> list[str]:
        """What pytest is called with to run the tests that are about this module."""
        chosen = ("-k", " and ".join(f"not {name}" for name in subject.without)) if subject.without else ()
        return [*_PYTEST, *chosen, *subject.tests]

    def forks(self) -> Forks:
        """A process that runs tests of the copy."""
        return Forks(sys.executable, self.folder, self.environ)

    def check(self, subject: Subject) -> float:
        """See the tests pass, and fail as soon as the copied module is broken. Answers the seconds they take. Raises Unfit."""
        arguments = self.arguments(subject)
        path = self.folder / subject.path
        text = path.read_text()
        with self.forks() as forks:
            # Compiles all that they import, which each mutant's run then finds.
            forks.run(arguments, _CHECK_SECONDS, keep_compiled=True)
            for compiled in self._compiled.rglob(f"{path.stem}.*.pyc"):
                compiled.unlink()
            began = time.monotonic()
            sound = forks.run(arguments, _CHECK_SECONDS)
            seconds = time.monotonic() - began
            path.write_text(f"{text}\nraise RuntimeError({_MARK!r})\n")
            try:
                broken = forks.run(arguments, _CHECK_SECONDS)
            finally:
                path.write_text(text)
        if sound.code != 0:
            raise Unfit(f"the tests of {subject.name} fail without a mutation:\n{sound.output}")
        if broken.code == 0 or _MARK not in broken.output:
            raise Unfit(f"the tests of {subject.name} do not import {subject.module} from the copy")
        return seconds

    @property
    def _compiled(self) -> Path:
        return self.folder / ".compiled"
