"""`python -m tests.mutation` on a module of its own: the mutants that are made, those that its tests notice, and those that survive."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mutation.session import COSMIC_RAY, Mutant, mutants_of
from tests.mutation.subjects import Subject
from tests.mutation.workspace import ROOT, Unfit, Workspace

pytestmark = pytest.mark.skipif(not COSMIC_RAY.exists(), reason="requirements/install mutation")

SAMPLE = '''\
from __future__ import annotations


def larger(one: int, other: int | None) -> int:
    """The larger of the two."""
    if other is not None and other > one:
        return other
    return one
'''
TESTS = """\
from sample import larger


def test_the_larger_of_two():
    assert larger(1, 3) == 3
    assert larger(3, 1) == 3
    assert larger(1, None) == 1
"""
SUBJECT = Subject("sample", "sample", "functions/sample.py", ("tests/unit/test_sample.py",))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A copy of a tree with the sample and its tests, and with what cosmic-ray loads from the copy."""
    tree = tmp_path / "tree"
    for path, text in ((SUBJECT.path, SAMPLE), (SUBJECT.tests[0], TESTS), (".gitignore", "kept-out\n")):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    (tree / "kept-out").write_text("")
    shutil.copytree(ROOT / "tests/mutation", tree / "tests/mutation", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests/conftest.py", tree / "tests")  # the Hypothesis profile that each run names
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    return Workspace.copied_to(tmp_path / "copy", tree)


def test_what_no_test_notices_survives_and_the_rest_is_killed(workspace: Workspace) -> None:
    seconds = workspace.check(SUBJECT)
    mutants: list[Mutant] = []
    left_out = 0
    for share in range(2):
        tried, annotations = mutants_of(workspace, SUBJECT, seconds, share=share, shares=2)
        mutants += tried
        left_out += annotations
        (workspace.folder / "sample.sqlite").unlink()
    found = {(mutant.operator, mutant.becomes): mutant.outcome for mutant in mutants}
    assert len(set(mutants)) == len(mutants)  # no mutant is in both shares
    assert [becomes for (_, becomes), outcome in found.items() if outcome == "SURVIVED"] == [
        "if other is not None and other >= one:"  # the same number, by either name
    ]
    assert found["ours/DropOperand", "if other > one:"] == "KILLED"
    assert found["ours/ReturnNone", "return None"] == "KILLED"
    assert found["AddNot", "if not other is not None and other > one:"] == "KILLED"
    assert left_out == 11  # what may stand for the `|` of an annotation
    assert (workspace.folder / SUBJECT.path).read_text() == SAMPLE


def test_what_git_leaves_out_is_not_copied(workspace: Workspace) -> None:
    assert not (workspace.folder / "kept-out").exists()


def test_tests_that_fail_by_themselves_tell_nothing(workspace: Workspace) -> None:
    (workspace.folder / SUBJECT.tests[0]).write_text("def test_nothing():\n    assert False\n")
    with pytest.raises(Unfit, match="fail without a mutation"):
        workspace.check(SUBJECT)


def test_tests_that_import_another_module_than_the_copys_tell_nothing(workspace: Workspace) -> None:
    (workspace.folder / SUBJECT.tests[0]).write_text("def test_nothing():\n    assert True\n")
    with pytest.raises(Unfit, match="do not import sample from the copy"):
        workspace.check(SUBJECT)
    assert (workspace.folder / SUBJECT.path).read_text() == SAMPLE
