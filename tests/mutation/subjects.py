"""What is mutated, and the tests that are about it."""

from __future__ import annotations

from dataclasses import dataclass

_LAYER = "layers/imburse_auth/src/imburse_auth"
_VENDING = "functions/vending"


@dataclass(frozen=True)
class Subject:
    """A module, its import name, its file, and the test files that must notice whatever is changed in it, quickest first.

    `without` names tests in them that take too long to be run for each mutant.
    """

    name: str
    module: str
    path: str
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


def _of_layer(name: str) -> Subject:
    return Subject(name, f"imburse_auth.{name}", f"{_LAYER}/{name}.py", (f"tests/unit/test_{name}.py",))


def _of_pool(name: str) -> Subject:
    tests = ("pool", f"{name}_mutants", "pool_leftovers")
    paths = tuple(f"tests/unit/test_{test}.py" for test in tests)
    return Subject(name, f"vending.supply.{name}", f"{_VENDING}/supply/{name}.py", paths, ("claims_cost_fewer_calls",))


SUBJECTS = {
    subject.name: subject
    for subject in (
        *map(_of_layer, ("hmac_token", "api_key", "exchange")),
        Subject(
            "policy",
            "vending.access.policy",
            f"{_VENDING}/access/policy.py",
            ("tests/unit/test_policy.py", "tests/unit/test_policy_mutants.py"),
        ),
        Subject(
            "slices",
            "vending.access.slices",
            f"{_VENDING}/access/slices.py",
            ("tests/unit/test_policy_slices.py",),
            without=("what_cedar_says_of_a_part", "so_it_does_for_each_stages_file"),
        ),
        *map(_of_pool, ("pool", "leftovers")),
        Subject("table", "vending.table", f"{_VENDING}/table.py", ("tests/integration/test_table.py",)),
    )
}
