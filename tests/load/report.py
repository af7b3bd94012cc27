"""What is printed and written of a load run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.load.conduct import Outcome
from tests.load.explain import Recovery, recoveries
from tests.load.measures import percentiles
from tests.load.plan import KILLED
from tests.load.verdict import Verdict

_SHOWN = 8  # of what speaks against a rule
_EVERY = 5  # of the samples of memory, which are taken each second


def text(outcome: Outcome, verdicts: Sequence[Verdict]) -> str:
    """The tables, for people."""
    rows = [["fault", "from s", "to s", "requests", "what failed", "served again after s"]]
    rows += [_row(outcome, one) for one in recoveries(outcome)]
    rows.append(_kills(outcome))
    lines = [*_aligned(rows), ""]
    served = [["door", "served", "p50 ms", "p99 ms"]]
    served += [
        [door, str(count), f"{p50 * 1000:.0f}", f"{p99 * 1000:.0f}"]
        for door, (count, p50, p99) in percentiles(outcome).items()
    ]
    lines += [*_aligned(served), "", f"refills: {_counts(Counter(outcome.refills))}", ""]
    for verdict in verdicts:
        lines.append(f"{'ok  ' if verdict.holds else 'FAIL'}  {verdict.rule}: {verdict.evidence}")
        against = Counter(verdict.against).most_common()
        lines += [f"        {times} x {what}" for what, times in against[:_SHOWN]]
        lines += [f"        and {len(against) - _SHOWN} more"] if len(against) > _SHOWN else []
    return "\n".join(lines)


def write(outcome: Outcome, verdicts: Sequence[Verdict], path: Path) -> None:
    """The same as JSON."""
    document = {
        "plan": asdict(outcome.plan),
        "seconds": outcome.ended - outcome.began,
        "faults": [
            {
                "fault": one.happened.fault,
                "fromSeconds": one.happened.began - outcome.began,
                "toSeconds": one.happened.ended - outcome.began,
                "requests": one.happened.met,
                "failed": dict(one.failed),
                "recoverySeconds": one.seconds,
            }
            for one in recoveries(outcome)
        ],
        "kills": [{"atSeconds": kill.at - outcome.began, "function": kill.function} for kill in outcome.kills],
        "doors": {
            door: {"served": count, "p50Seconds": p50, "p99Seconds": p99}
            for door, (count, p50, p99) in percentiles(outcome).items()
        },
        "memory": [
            {
                "function": one.function,
                "fromSeconds": one.samples[0][0] - outcome.began,
                "mib": [round(size / 2**20, 1) for _, size in one.samples[::_EVERY]],
                "everySeconds": _EVERY,
            }
            for one in outcome.environments
            if one.samples
        ],
        "refills": dict(Counter(outcome.refills)),
        "imburse": outcome.statistics,
        "rules": [{**asdict(verdict), "holds": verdict.holds} for verdict in verdicts],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _row(outcome: Outcome, one: Recovery) -> list[str]:
    happened = one.happened
    return [
        happened.fault,
        f"{happened.began - outcome.began:.1f}",
        f"{happened.ended - outcome.began:.1f}",
        str(happened.met),
        _counts(one.failed),
        f"{one.seconds:.1f}",
    ]


def _kills(outcome: Outcome) -> list[str]:
    failed = Counter(visit.code for visit in outcome.visits if visit.code in KILLED)
    afters = [
        min((visit.ended - kill.at for kill in outcome.kills if kill.at <= visit.ended), default=0.0)
        for visit in outcome.visits
        if visit.code in KILLED
    ]
    killed = Counter(kill.function for kill in outcome.kills)
    return ["killed: " + _counts(killed), "", "", "", _counts(failed), f"{max(afters, default=0.0):.1f}"]


def _counts(counter: Counter[str] | Counter[str | None]) -> str:
    return ", ".join(f"{times} {what}" for what, times in counter.most_common()) or "nothing"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
