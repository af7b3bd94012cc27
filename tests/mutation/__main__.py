"""Mutation testing: `python -m tests.mutation [MODULE ...] [--jobs N]`.

Changes the modules on which everything rests, one small thing at a time, in a copy of the tree, and runs the tests that are about
each. Ends with 1 if a change went unnoticed that SURVIVORS.toml does not explain, or if it explains what was noticed.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.mutation.session import COSMIC_RAY, Mutant, mutants_of
from tests.mutation.subjects import SUBJECTS, Subject
from tests.mutation.survivors import FILE, explanations, judge
from tests.mutation.workspace import Unfit, Workspace


def main(arguments: Sequence[str]) -> int:
    """Run it; 0 if every survivor is explained, 1 if not, 2 if it could not be found out."""
    parser = ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(SUBJECTS)}; all unless named")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at a time, each in a copy of its own")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.modules) - SUBJECTS.keys():
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not COSMIC_RAY.exists():
        console.print("cosmic-ray is not installed: requirements/install mutation")
        return 2
    subjects = [SUBJECTS[name] for name in asked.modules or SUBJECTS]
    try:
        with ThreadPoolExecutor(asked.jobs) as threads:
            shares = list(threads.map(lambda share: _share(subjects, share, asked.jobs), range(asked.jobs)))
    except Unfit as exc:
        console.print(str(exc))
        return 2
    mutants = [mutant for tried, _ in shares for mutant in tried]
    left_out = sum((counter for _, counter in shares), Counter[str]())
    return _report(console, [subject.name for subject in subjects], mutants, left_out)


def _share(subjects: Sequence[Subject], share: int, shares: int) -> tuple[list[Mutant], Counter[str]]:
    """Every `shares`-th mutant of each module, in a copy of the tree; and how many were left out."""
    mutants: list[Mutant] = []
    left_out = Counter[str]()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        workspace = Workspace.copied_to(Path(folder))
        for subject in subjects:
            seconds = workspace.check(subject)
            tried, left_out[subject.name] = mutants_of(workspace, subject, seconds, share=share, shares=shares)
            mutants += tried
    return mutants, left_out


def _report(console: Console, modules: Sequence[str], mutants: Sequence[Mutant], left_out: Counter[str]) -> int:
    verdict = judge(mutants, explanations(FILE.read_text()), modules)
    table = Table(
        "module", "killed", "of them by time", "survived, explained", "survived, unexplained", "annotations, not tried"
    )
    for module in modules:
        outcomes = Counter(mutant.outcome for mutant in mutants if mutant.module == module)
        counts = (
            outcomes["KILLED"] + outcomes["TIMEOUT"],
            outcomes["TIMEOUT"],
            sum(mutant.module == module for mutant in verdict.explained),
            sum(mutant.module == module for mutant in verdict.unexplained),
            left_out[module],
        )
        table.add_row(module, *map(str, counts))
    console.print(table)
    for mutant in verdict.unexplained:
        console.print(
            f"survived: {mutant.module}, {mutant.where} ({mutant.operator})\n  - {mutant.was}\n  + {mutant.becomes}"
        )
    for module, where, was, becomes in verdict.stale:
        console.print(f"{FILE.name} explains what did not survive: {module}, {where}\n  - {was}\n  + {becomes}")
    return 1 if verdict.unexplained or verdict.stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
