"""The load run in short: every caller and every fault once; `make load` is the long form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.load.conduct import conduct
from tests.load.judge import judge
from tests.load.plan import KINDS, Plan
from tests.load.trail import read_trail
from tests.processes import descendants

SHORT = Plan(
    seconds=16,
    callers=len(KINDS) + 3,
    concurrency=4,
    pause_seconds=0.4,
    lead_seconds=2,
    fault_share=0.6,
    kill_every_seconds=4,
    refill_every_seconds=8,
    settle_seconds=120,
    judge_recovery=False,
    judge_memory=False,
)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="environments are found, and killed, by /proc")
def test_under_load_and_faults_nothing_is_vended_twice_and_all_is_answered_as_documented(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    outcome = conduct(SHORT, tmp_path)
    assert set(descendants(os.getpid())) <= before, "a process of the run is left"
    trail = read_trail(outcome.log)
    verdicts = judge(outcome, trail)
    assert [f"{one.rule}: {one.against}" for one in verdicts if not one.holds] == []
    assert trail.sources.keys() == {"pool", "exchange", "shared"}
    served = {(visit.kind, visit.door) for visit in outcome.visits if visit.code in (None, "not_authorized")}
    assert served == {(kind.name, kind.door) for kind in KINDS}
