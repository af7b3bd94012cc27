"""Everything that `make bench` measures, in one run: `python -m tests.bench [--quick] [--only NAME ...] [--out FOLDER] [--readme]`.

Prints a table for each comparison and writes into the folder: bench.json with every sample, bench.png, bench.md with the table
for the README, and what the simulation of the refill rule and the cost sheet write there. `--readme` also puts both tables into
the README. No figure fails the command; what breaks down does, once all the others have been measured.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from tests.bench import cold_start, cost, micro, simulate_refill, throughput, warm
from tests.bench.report import document, table
from tests.bench.report_plot import plot
from tests.bench.report_readme import markdown, placed
from tests.bench.side_by_side import Comparison

README = Path(__file__).parents[2] / "README.md"

# What each measures with so many rounds, those of a whole run, and those of --quick.
COMPARISONS: dict[str, tuple[Callable[[int], Comparison | Sequence[Comparison]], int, int]] = {
    **micro.COMPARISONS,
    **cold_start.COMPARISONS,
    **warm.COMPARISONS,
    **throughput.COMPARISONS,
}

# What counts rather than measures, and prints and writes by itself: given `--out FOLDER`, and these too where it is to be quick.
SHEETS: Mapping[str, tuple[Callable[[Sequence[str]], None], Sequence[str]]] = {
    "refill": (simulate_refill.main, ()),
    "cost": (cost.main, ("--rate", "1")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and keep the figures. ExceptionGroup: what broke down. ValueError: the README has no place for its tables."""
    names = [*COMPARISONS, *SHEETS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(".local/bench"), help="folder for what is written")
    parser.add_argument("--quick", action="store_true", help="fewer samples: to see that it runs, not how fast")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--readme", action="store_true", help="put the tables of this whole run into the README")
    options = parser.parse_args(arguments)
    if options.readme and (options.quick or options.only != names):
        parser.error("--readme wants a whole run, without --quick and --only")
    if options.readme:
        placed(README.read_text(), "")  # raises now rather than after a quarter of an hour
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    began = datetime.now(UTC)
    comparisons, failures = _measured([name for name in COMPARISONS if name in options.only], options.quick, console)
    if comparisons:
        kept = document(comparisons, at=began)
        (options.out / "bench.json").write_text(json.dumps(kept, indent=1) + "\n")
        (options.out / "bench.md").write_text(markdown(comparisons, at=began))
        plot(comparisons, options.out / "bench.png")
        console.print(f"written: {options.out}/bench.json, bench.md and bench.png")
    for name in SHEETS:
        if name in options.only:
            write, quick = SHEETS[name]
            write(["--out", str(options.out), *(quick if options.quick else ())])
    if failures:
        raise ExceptionGroup("some of it could not be measured", failures)
    if options.readme:
        block = (options.out / "bench.md").read_text() + "\n" + (options.out / "cost.md").read_text()
        README.write_text(placed(README.read_text(), block))


def _measured(names: Sequence[str], quick: bool, console: Console) -> tuple[list[Comparison], list[Exception]]:
    """One after the other, so that they do not disturb each other; what breaks down loses nothing of the others."""
    comparisons, failures = list[Comparison](), list[Exception]()
    for name in names:
        measure, rounds, few = COMPARISONS[name]
        try:
            with redirect_stdout(io.StringIO()):  # the machine's metrics and log lines
                made = measure(few if quick else rounds)
        except Exception as exc:  # noqa: BLE001 - told at the end, with its trace
            exc.add_note(f"in the measurement {name!r}")
            failures.append(exc)
            console.print(f"{name}: broke down")
            continue
        for comparison in [made] if isinstance(made, Comparison) else made:
            comparisons.append(comparison)
            console.print(table(comparison))
    return comparisons, failures


if __name__ == "__main__":
    main()
