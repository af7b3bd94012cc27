"""cosmic-ray's own way of trying one mutant after the other, but for the process in which the tests run.

cosmic-ray loads it in its own environment, by the entry point that the workspace makes.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from tests.mutation.forks import Forks


class Distributor:
    """Tries mutants in forks. Of its section of the settings: `python`, and pytest's `arguments`."""

    def __call__(
        self,
        pending_work: Any,
        test_command: str,
        timeout: float,
        config: Mapping[str, Any],
        on_task_complete: Callable[..., None],
    ) -> None:
        local = importlib.import_module("cosmic_ray.distribution.local").LocalDistributor()
        outcomes = importlib.import_module("cosmic_ray.work_item").TestOutcome
        with Forks(config["python"], Path.cwd(), os.environ) as forks:

            def run_tests(_: str, seconds: float) -> tuple[Any, str]:
                run = forks.run(config["arguments"], seconds)
                if run.code is None:
                    return outcomes.KILLED, "timeout"
                return (outcomes.SURVIVED if run.code == 0 else outcomes.KILLED), run.output

            with mock.patch("cosmic_ray.mutating.run_tests", run_tests):
                local(pending_work, test_command, timeout, config, on_task_complete)
