"""The mutation tests' own arithmetic: what is left out, and which survivors are explained. No module is mutated here."""

from __future__ import annotations

import pytest

from tests.mutation.session import Mutant, annotations_in
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
    for module, _, was, _ in explanations(FILE.read_text()):
        lines = {line.strip() for line in (ROOT / SUBJECTS[module].path).read_text().splitlines()}
        assert was in lines or any(was.startswith(line) for line in lines if line), was


def test_every_subject_and_its_tests_are_there() -> None:
    for subject in SUBJECTS.values():
        for path in (subject.path, *subject.tests):
            assert (ROOT / path).is_file()


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
