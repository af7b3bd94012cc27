"""A rule of a load run, and what is counted for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Verdict:
    """A rule, what was counted for it, and what speaks against it."""

    rule: str
    evidence: str
    against: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing does."""
        return not self.against


def counts(counter: Counter[str]) -> str:
    """In words, the most frequent first."""
    return ", ".join(f"{times} {what}" for what, times in counter.most_common()) or "none"
