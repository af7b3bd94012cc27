"""What cosmic-ray's own operators leave alone: whole statements, the parts of a list, of a call and of a condition, and names.

cosmic-ray loads `Provider` in its own environment, by the entry point that the workspace makes. An operator answers, for a node of
parso's tree, the texts that may stand in its place; it is what cosmic-ray calls with `mutation_positions` and `mutate`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

Node = Any  # of parso, which the tests' own environment does not have

_SIMPLE_STATEMENTS = {"expr_stmt", "atom_expr", "return_stmt", "raise_stmt", "del_stmt", "yield_expr"}
# More than one word is for people: no test reads the wording of a message letter by letter, on purpose.
_PROSE = re.compile(r"\w \w")


class _Operator:
    """Replaces nodes by other texts."""

    def changes(self, node: Node) -> Iterable[str]:
        """The texts that may stand in the node's place."""
        raise NotImplementedError

    @classmethod
    def arguments(cls) -> Sequence[Any]:
        """None."""
        return ()

    def mutation_positions(self, node: Node) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """One for each text."""
        for _ in self.changes(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Node, index: int) -> Node:
        """The text of that number, as a node."""
        text = list(self.changes(node))[index]
        return importlib.import_module("parso").parse(node.get_first_leaf().prefix + text)


class DropStatement(_Operator):
    """`pass` instead of an assignment, a call, a return, a raise, with a value or bare, a yield, a del, a continue."""

    def changes(self, node: Node) -> Iterable[str]:
        if node.parent is None or node.parent.type != "simple_stmt":
            return []
        if node.type == "keyword":
            return ["pass"] if node.value in ("continue", "return", "raise") else []
        declares = (
            node.type == "expr_stmt" and node.children[1].type == "annassign" and "=" not in node.children[1].children
        )
        return ["pass"] if node.type in _SIMPLE_STATEMENTS and not declares else []


class ReturnNone(_Operator):
    """`return None` instead of a value."""

    def changes(self, node: Node) -> Iterable[str]:
        value = node.children[1].get_code().strip() if node.type == "return_stmt" else "None"
        return [] if value == "None" else ["return None"]


class DropCause(_Operator):
    """`raise` without its `from`."""

    def changes(self, node: Node) -> Iterable[str]:
        if node.type != "raise_stmt" or len(node.children) < 3:
            return []
        return ["raise" + node.children[1].get_code()]


class DropOperand(_Operator):
    """`a and b`, each without one of its parts."""

    def changes(self, node: Node) -> Iterable[str]:
        if node.type not in ("and_test", "or_test"):
            return
        parts = [child.get_code() for child in node.children[::2]]
        for left_out in range(len(parts)):
            yield node.children[1].get_code().join(parts[:left_out] + parts[left_out + 1 :]).lstrip()


class DropCondition(_Operator):
    """A comprehension without its `if`."""

    def changes(self, node: Node) -> Iterable[str]:
        return [""] if node.type == "comp_if" else []


class DropElement(_Operator):
    """A tuple, list, set or dict without one of its elements."""

    def changes(self, node: Node) -> Iterable[str]:
        if node.type not in ("testlist_comp", "dictorsetmaker", "testlist_star_expr", "testlist"):
            return
        assigned_to = node.parent.type == "expr_stmt" and node.parent.children[-1] is not node
        if assigned_to or any(child.type in ("comp_for", "sync_comp_for") for child in node.children):
            return
        yield from _each_left_out(node)


class DropKeyword(_Operator):
    """A call without one of its named arguments."""

    def changes(self, node: Node) -> Iterable[str]:
        if node.type == "arglist":
            yield from _each_left_out(node, only=_is_named)
        elif node.type == "argument" and node.parent.type == "trailer" and _is_named([node]):
            yield ""


class ChangeText(_Operator):
    """Another text of one word, such as a name or a key."""

    def changes(self, node: Node) -> Iterable[str]:
        if node.type == "fstring_string" and not _PROSE.search(node.value):
            return ["XX" + node.value]
        if node.type != "string" or node.parent.type == "simple_stmt" or _PROSE.search(node.value):
            return []
        opening = re.match(r"\w*(\"\"\"|'''|\"|')", node.value)
        return [f"{opening[0]}XX{node.value[opening.end() :]}"] if opening else []


def _groups(node: Node) -> list[list[Node]]:
    """The children between commas."""
    groups: list[list[Node]] = [[]]
    for child in node.children:
        if child.type == "operator" and child.value == ",":
            groups.append([])
        else:
            groups[-1].append(child)
    return [group for group in groups if group]


def _each_left_out(node: Node, only: Any = lambda _: True) -> Iterator[str]:
    groups = _groups(node)
    texts = ["".join(child.get_code() for child in group) for group in groups]
    for left_out, group in enumerate(groups):
        if only(group):
            left = texts[:left_out] + texts[left_out + 1 :]
            yield "".join(f"{text}," for text in left).lstrip()  # with the last comma, one element is a tuple still


def _is_named(group: list[Node]) -> bool:
    return group[0].type == "argument" and len(group[0].children) == 3 and group[0].children[1].value == "="


class Provider:
    """The operators by name, as cosmic-ray asks for them."""

    _operators: ClassVar = {
        operator.__name__: operator
        for operator in (
            DropStatement, ReturnNone, DropCause, DropOperand, DropCondition, DropElement, DropKeyword, ChangeText,
        )
    }  # fmt: skip

    def __iter__(self) -> Iterator[str]:
        return iter(self._operators)

    def __getitem__(self, name: str) -> type[_Operator]:
        return self._operators[name]
