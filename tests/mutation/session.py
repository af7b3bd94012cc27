"""One session of cosmic-ray: which mutants of a module there are, and what becomes of each.

Its database is read and thinned out here, as its documentation invites filters to do.
"""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from tests.mutation.subjects import Subject
from tests.mutation.workspace import ROOT, Unfit, Workspace

COSMIC_RAY = ROOT / ".tools/mutation/bin/cosmic-ray"
# A mutant that loops for ever is killed by time; a machine that is busy must not pass for one.
_TIMEOUT_FACTOR = 10
_TIMEOUT_LEAST_SECONDS = 15

Position = tuple[int, int]  # line from 1, column from 0, in characters


@dataclass(frozen=True)
class Mutant:
    """One change, and whether a test noticed: `was` and `becomes` are the lines that differ, without their indentation.

    `where` is the function or class, as `place_in` names it. `outcome` is KILLED, TIMEOUT (killed too: it hung) or SURVIVED; what cosmic-ray could not make counts as that.
    """

    module: str
    where: str
    operator: str
    was: str
    becomes: str
    outcome: str

    @property
    def survived(self) -> bool:
        """Whether all tests passed."""
        return self.outcome == "SURVIVED"


def mutants_of(
    workspace: Workspace, subject: Subject, seconds: float, *, share: int = 0, shares: int = 1
) -> tuple[list[Mutant], int]:
    """Run the mutants of a module, or every n-th of them, and say what became of each and how many were left out.

    `seconds` is what the tests take. Left out is what changes an annotation only: those are never evaluated.
    """
    config = workspace.folder / f"{subject.name}.toml"
    database = workspace.folder / f"{subject.name}.sqlite"
    source = (workspace.folder / subject.path).read_text()
    config.write_text(_config(workspace, subject, seconds))
    _cosmic_ray(workspace, "init", str(config), str(database))
    with closing(sqlite3.connect(database)) as connection, connection:
        left_out = _thin_out(connection, source, share, shares)
    _cosmic_ray(workspace, "exec", str(config), str(database))
    with closing(sqlite3.connect(database)) as connection:
        return list(_results(connection, subject, source)), left_out


def _config(workspace: Workspace, subject: Subject, seconds: float) -> str:
    return (
        f'[cosmic-ray]\nmodule-path = "{subject.path}"\nexcluded-modules = []\ntest-command = ""\n'
        f"timeout = {max(_TIMEOUT_LEAST_SECONDS, _TIMEOUT_FACTOR * seconds):.1f}\n"
        '[cosmic-ray.distributor]\nname = "forks"\n[cosmic-ray.distributor.forks]\n'
        f"python = {json.dumps(sys.executable)}\narguments = {json.dumps(workspace.arguments(subject))}\n"
    )


def _cosmic_ray(workspace: Workspace, *arguments: str) -> None:
    done = subprocess.run(
        [str(COSMIC_RAY), *arguments],
        cwd=workspace.folder, env=workspace.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise Unfit(f"cosmic-ray {arguments[0]}: {done.stdout}{done.stderr}")


def _thin_out(connection: sqlite3.Connection, source: str, share: int, shares: int) -> int:
    """Leave the mutants of this share that change more than an annotation. Answers how many of the share changed no more."""
    annotations = annotations_in(source)
    rows = connection.execute(
        "SELECT job_id, start_pos_row, start_pos_col, end_pos_row, end_pos_col FROM mutation_specs ORDER BY rowid"
    ).fetchall()
    left_out = 0
    for number, (job, *position) in enumerate(rows):
        begin, end = (position[0], position[1]), (position[2], position[3])
        mine = number % shares == share
        annotation = any(first <= begin and end <= last for first, last in annotations)
        left_out += mine and annotation
        if not mine or annotation:
            connection.execute("DELETE FROM mutation_specs WHERE job_id = ?", (job,))
            connection.execute("DELETE FROM work_items WHERE job_id = ?", (job,))
    return left_out


def annotations_in(source: str) -> list[tuple[Position, Position]]:
    """Where the annotations stand; none if the module does not keep them from being evaluated."""
    tree, lines = ast.parse(source), source.splitlines()
    postponed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    if not postponed:
        return []
    nodes = (getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns"))
    return [
        (_position(lines, node.lineno, node.col_offset), _position(lines, node.end_lineno, node.end_col_offset))
        for node in nodes
        if isinstance(node, ast.expr) and node.end_lineno is not None and node.end_col_offset is not None
    ]


def _position(lines: list[str], line: int, offset: int) -> Position:
    return line, len(lines[line - 1].encode()[:offset].decode())  # ast counts bytes


def place_in(source: str, line: int) -> str:
    """What names a line (from 1) beside its text: the function or class it stands in, by its qualified name, "" for the module.

    If that text stands in there more than once, which of them it is follows, from 1: `Pool.claim #2`.
    """
    owners = _owners(source)
    texts = [text.strip() for text in source.splitlines()]
    alike = [
        number
        for number, (text, owner) in enumerate(zip(texts, owners, strict=True), start=1)
        if text == texts[line - 1] and owner == owners[line - 1]
    ]
    return owners[line - 1] if len(alike) == 1 else f"{owners[line - 1]} #{alike.index(line) + 1}".lstrip()


def _owners(source: str) -> list[str]:
    """The qualified name of the innermost function or class that each line stands in."""
    owners = [""] * len(source.splitlines())

    def enter(node: ast.AST, within: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = within
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{within}.{child.name}".lstrip(".")
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                last = child.end_lineno or first
                owners[first - 1 : last] = [name] * (last - first + 1)
            enter(child, name)

    enter(ast.parse(source), "")
    return owners


def _results(connection: sqlite3.Connection, subject: Subject, source: str) -> Iterator[Mutant]:
    query = (
        "SELECT operator_name, start_pos_row, diff, worker_outcome, test_outcome, output FROM work_items"
        " JOIN mutation_specs USING (job_id) LEFT JOIN work_results USING (job_id) ORDER BY work_items.rowid"
    )
    for operator, line, diff, worker, outcome, output in connection.execute(query):
        if worker == "NORMAL" and outcome in ("SURVIVED", "KILLED"):
            first, was, becomes = differing(diff)
            how = "TIMEOUT" if output == "timeout" else outcome
        else:
            first, was, becomes = line, source.splitlines()[line - 1].strip(), f"(not tried: {operator})"
            how = "SURVIVED"
        yield Mutant(subject.name, place_in(source, first), operator.removeprefix("core/"), was, becomes, how)


def differing(diff: str) -> tuple[int, str, str]:
    """Of a unified diff: the number of the first line that was changed, and the text before and after, lines joined by a space."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    heads = (index for index, line in enumerate(lines) if line.startswith("@@"))
    head = next(heads)
    unchanged = next(number for number, line in enumerate(lines[head + 1 :]) if line.startswith(("-", "+")))
    begin = re.match(r"@@ -(\d+)", lines[head])
    assert begin
    return (
        int(begin[1]) + unchanged,
        _joined(line[1:] for line in lines if line.startswith("-")),
        _joined(line[1:] for line in lines if line.startswith("+")),
    )


def _joined(lines: Iterable[str]) -> str:
    # Without the empty line that cosmic-ray counts after a file's last.
    return " ".join(filter(None, (line.strip() for line in lines)))
