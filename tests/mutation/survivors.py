"""SURVIVORS.toml: the mutants that no test notices, each with the reason why none can, or need."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.session import Mutant

FILE = Path(__file__).with_name("SURVIVORS.toml")

# A mutant by what it changes and not by its line's number, which moves: module, `Mutant.where`, the line before and after.
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Verdict:
    """`unexplained` survived without a reason; `stale` are reasons for what did not survive, or is not there any more."""

    explained: tuple[Mutant, ...]
    unexplained: tuple[Mutant, ...]
    stale: tuple[Key, ...]


def key_of(mutant: Mutant) -> Key:
    """What names this mutant in SURVIVORS.toml."""
    return mutant.module, mutant.where, mutant.was, mutant.becomes


def explanations(text: str) -> dict[Key, str]:
    """The reason by mutant. Raises ValueError if one lacks its reason or stands twice."""
    found: dict[Key, str] = {}
    for entry in tomllib.loads(text).get("survivor", []):
        for becomes in entry["becomes"]:
            key = (entry["module"], entry["where"], entry["was"], becomes)
            if key in found or not entry["why"].strip():
                raise ValueError(f"{FILE.name}: there twice, or without a reason: {key}")
            found[key] = entry["why"]
    return found


def judge(mutants: Iterable[Mutant], reasons: Mapping[Key, str], modules: Collection[str]) -> Verdict:
    """Hold the survivors among these mutants against the reasons. `modules` are those of which all mutants were tried."""
    survivors = [mutant for mutant in mutants if mutant.survived]
    seen = {key_of(mutant) for mutant in survivors}
    return Verdict(
        explained=tuple(mutant for mutant in survivors if key_of(mutant) in reasons),
        unexplained=tuple(mutant for mutant in survivors if key_of(mutant) not in reasons),
        stale=tuple(key for key in reasons if key[0] in modules and key not in seen),
    )
