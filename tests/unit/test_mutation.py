"""The mutation tests' own arithmetic: what is left out, and which survivors are explained. No module is mutated here."""

from __future__ import annotations

import difflib
from types import SimpleNamespace

import pytest

from tests.mutation.operators import DropStatement
from tests.mutation.session import Mutant, annotations_in, differing, place_in
from tests.mutation.subjects import SUBJECTS
from tests.mutation.survivors import FILE, explanations, judge, key_of
from tests.mutation.workspace import ROOT

ENTRY = """
[[survivor]]
module = "pool"
where = "claim"
was = "n < 2"
becomes = ["n <= 1", "n != 2"]
why = "n is a whole number of 0 to 2."
"""


def mutant(becomes: str = "n <= 1", outcome: str = "SURVIVED", module: str = "pool") -> Mutant:
    return Mutant(module, "claim", "Operator", "n < 2", becomes, outcome)


def test_a_survivor_with_a_reason_is_explained_and_another_is_not() -> None:
    reasons = explanations(ENTRY)
    verdict = judge([mutant(), mutant("n > 2"), mutant("n != 2"), mutant("n == 2", "KILLED")], reasons, {"pool"})
    assert [one.becomes for one in verdict.explained] == ["n <= 1", "n != 2"]
    assert [one.becomes for one in verdict.unexplained] == ["n > 2"]
    assert verdict.stale == ()


@pytest.mark.parametrize("outcome", ["KILLED", "TIMEOUT"])
def test_a_reason_for_what_a_test_notices_or_for_what_is_gone_is_stale(outcome: str) -> None:
    verdict = judge([mutant(outcome=outcome)], explanations(ENTRY), {"pool"})
    assert verdict.stale == (key_of(mutant()), key_of(mutant("n != 2")))


def test_a_reason_is_not_stale_while_its_module_was_not_tried() -> None:
    assert judge([], explanations(ENTRY), {"policy"}).stale == ()


def test_one_modules_reason_explains_nothing_in_another() -> None:
    assert judge([mutant(module="policy")], explanations(ENTRY), {"policy"}).unexplained == (mutant(module="policy"),)


@pytest.mark.parametrize("text", [ENTRY + ENTRY, ENTRY.replace("n is a whole number of 0 to 2.", " ")])
def test_a_reason_that_stands_twice_or_is_empty_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="there twice, or without a reason"):
        explanations(text)


def test_every_survivor_that_is_explained_is_about_a_line_that_is_there() -> None:
    for module, where, was, _ in explanations(FILE.read_text()):
        source = (ROOT / SUBJECTS[module].path).read_text()
        lines = enumerate(source.splitlines(), start=1)
        there = [number for number, line in lines if line.strip() and f"{was} ".startswith(f"{line.strip()} ")]
        assert where in {place_in(source, number) for number in there}, (where, was)


def test_every_subject_and_its_tests_are_there() -> None:
    for subject in SUBJECTS.values():
        for path in (subject.path, *subject.tests):
            assert (ROOT / path).is_file()


PLACES = """\
n = 1
class A:
    n = 1
    @cache
    def f(self):
        n = 1
        def g():
            n = 1
        n = 1
        return g
    n = 1
class B:
    def f(self):
        n = 1
n = 1
"""


def test_equal_lines_have_names_of_their_own_by_class_function_and_number() -> None:
    names = [place_in(PLACES, number) for number, line in enumerate(PLACES.splitlines(), 1) if line.strip() == "n = 1"]
    assert names == ["#1", "A #1", "A.f #1", "A.f.g", "A.f #2", "A #2", "B.f", "#2"]
    assert (place_in(PLACES, 2), place_in(PLACES, 4)) == ("A", "A.f")


def test_of_a_diff_the_first_line_that_differs_is_told_and_what_it_was_and_became() -> None:
    before, after = (PLACES.splitlines(keepends=True) for _ in range(2))
    after[9:11] = ["        pass\n"]
    diff = "".join(difflib.unified_diff(before, after, "a", "b"))
    assert differing(f"--- mutation diff ---\n{diff}") == (10, "return g n = 1", "pass")


def test_a_change_of_a_files_last_line_is_told_without_the_empty_one_that_cosmic_ray_shows_after_it() -> None:
    diff = "--- mutation diff ---\n--- a\n+++ b\n@@ -8,2 +8,2 @@\n def f():\n-    return 1\n-\n+    return 2\n+"
    assert differing(diff) == (9, "return 1", "return 2")


@pytest.mark.parametrize(("word", "dropped"), [("return", True), ("raise", True), ("continue", True), ("pass", False)])
def test_a_bare_word_that_leaves_the_function_is_dropped(word: str, dropped: bool) -> None:
    node = SimpleNamespace(type="keyword", value=word, parent=SimpleNamespace(type="simple_stmt"))
    assert list(DropStatement().changes(node)) == ["pass"] * dropped


SOURCE = """\
from __future__ import annotations


class Ü:
    name: str | None = "ä" | None

    def f(self, a: int | str = 1 | 2, *b: int | None) -> list[int | str]:
        c: int | str = 1 | 2
"""


def test_what_is_left_out_are_annotations_and_nothing_beside_them() -> None:
    lines = SOURCE.splitlines()
    found = [lines[line - 1][begin:end] for (line, begin), (_, end) in annotations_in(SOURCE)]
    assert sorted(found) == ["int | None", "int | str", "int | str", "list[int | str]", "str | None"]


def test_an_annotation_that_is_evaluated_is_not_left_out() -> None:
    assert annotations_in(SOURCE.replace("from __future__ import annotations", "")) == []
