"""The local stack under load, with faults that come and go: `python -m tests.load [--minutes 5] [--callers 64] [--seed N]`.

Prints what happened and what of it is right, writes .local/load/report.json, and ends with 1 if a rule does not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from local.machine import leave_out_own_settings
from local.stack import PROJECT
from tests.load import report
from tests.load.conduct import conduct
from tests.load.judge import judge
from tests.load.plan import Plan
from tests.load.trail import read_trail

FOLDER = PROJECT / ".local/load"


def main(arguments: list[str]) -> int:
    """Answers the exit code: 0, or 1 if something speaks against it, 130 after Ctrl-C."""
    options = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--callers", type=int, default=64)
    options.add_argument("--seed", type=int, default=1, help="decides the order of the faults, and who is killed")
    given = options.parse_args(arguments)
    plan = Plan(seconds=60 * given.minutes, callers=given.callers, seed=given.seed)
    leave_out_own_settings(os.environ)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        outcome = conduct(plan, FOLDER, _say)
    except KeyboardInterrupt:
        return 130
    verdicts = judge(outcome, read_trail(outcome.log))
    report.write(outcome, verdicts, FOLDER / "report.json")
    sys.stdout.write(report.text(outcome, verdicts) + "\n")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
