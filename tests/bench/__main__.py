"""Everything that `make bench` measures, in one run: `python -m tests.bench [--quick] [--only NAME ...] [--out FOLDER] [--readme]`.

Prints a table for each comparison and writes into the folder: bench.json with every sample, as soon as there is one more
comparison, and in the end bench.png, bench.md with the table for the README, and what the simulation of the refill rule and the
cost sheet write there. A whole run takes the place of the last one once it has come to its end; `--only` measures some of it and
leaves the others in bench.json as they are; `--quick` has a folder of its own, quick in that of whole runs. `--from bench.json`
measures nothing and reports again what is in there. `--readme` also puts both tables into the README. No figure fails the command;
what breaks down does, once all the others have been tried.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import cold_start, cost, micro, simulate_refill, throughput, warm
from tests.bench.report import machine, table
from tests.bench.report_json import document, joined, read
from tests.bench.report_plot import plot
from tests.bench.report_readme import markdown, placed
from tests.bench.side_by_side import Comparison

README = Path(__file__).parents[2] / "README.md"
OUT = Path(".local/bench")

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
    parser.add_argument("--out", type=Path, help=f"folder for what is written ({OUT}; with --quick {OUT}/quick)")
    parser.add_argument("--quick", action="store_true", help="fewer samples: to see that it runs, not how fast")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    parser.add_argument(
        "--from", type=Path, dest="source", metavar="FILE", help="report this bench.json, measure nothing"
    )
    parser.add_argument("--readme", action="store_true", help="put the tables of a whole run into the README")
    options = parser.parse_args(arguments)
    if (options.readme or options.source) and (options.quick or options.only != names):
        parser.error("--readme and --from want a whole run, without --quick and --only")
    if options.readme:
        placed(README.read_text(), "")  # raises now rather than after a quarter of an hour
    out: Path = options.out or (options.source.parent if options.source else OUT / "quick" if options.quick else OUT)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    if options.source:
        kept = json.loads(options.source.read_text())
        comparisons = read(kept)
        for comparison in comparisons:
            console.print(table(comparison))
        _report(comparisons, kept["machine"], out, console)
    else:
        try:
            run = Run(out / "bench.json", console)
        except (KeyError, TypeError, ValueError):
            parser.error(f"{out}/bench.json is of another form: move it away, or use another --out")
        if run.elsewhere():
            parser.error(f"{run.path} was measured on another machine: use another --out")
        run.measure([name for name in COMPARISONS if name in options.only], quick=options.quick)
        if options.only == names and not run.failures:
            run.forget()
        if run.comparisons:
            _report(run.comparisons, machine(), out, console)
        for name in SHEETS:
            if name in options.only:
                write, quick = SHEETS[name]
                with run.trying(name):
                    write(["--out", str(out), *(quick if options.quick else ())])
        if run.failures:
            raise ExceptionGroup("some of it could not be measured", run.failures)
    if options.readme:
        block = (out / "bench.md").read_text() + "\n" + (out / "cost.md").read_text()
        README.write_text(placed(README.read_text(), block))


class Run:
    """Measures one thing after the other, so that they do not disturb each other, and keeps each in the file at once."""

    def __init__(self, path: Path, console: Console) -> None:
        self.path, self.failures, self._console = path, list[Exception](), console
        self._kept: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else document((), on=machine())
        self._before, self._fresh = read(self._kept), list[Comparison]()

    @property
    def comparisons(self) -> list[Comparison]:
        """What was there before and is not forgotten, and what is new."""
        return joined(self._before, self._fresh)

    def elsewhere(self) -> bool:
        """Whether what was there before is from another kind of machine."""
        return bool(self._before) and self._kept["machine"] != machine()

    def forget(self) -> None:
        """Keep nothing but what was measured now."""
        self._before = []
        self._keep()

    def measure(self, names: Sequence[str], *, quick: bool) -> None:
        """All of these. What breaks down is in `failures`, and loses nothing of the others."""
        for name in names:
            measure, rounds, few = COMPARISONS[name]
            with self.trying(name):
                with redirect_stdout(io.StringIO()):  # the machine's metrics and log lines
                    made = measure(few if quick else rounds)
                for comparison in [made] if isinstance(made, Comparison) else made:
                    if any(comparison.what == other.what for other in self._fresh):
                        raise ValueError(f"{comparison.what!r} was measured twice")
                    self._fresh.append(dataclasses.replace(comparison, measured=datetime.now(UTC)))
                    self._console.print(table(comparison))
                self._keep()

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """The exception that the block ends with is a failure of that name."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - told at the end, with its trace
            exc.add_note(f"in the measurement {name!r}")
            self.failures.append(exc)
            self._console.print(f"{name}: broke down")

    def _keep(self) -> None:
        self.path.write_text(json.dumps(document(self.comparisons, on=machine()), indent=1) + "\n")


def _report(comparisons: Sequence[Comparison], on: Mapping[str, Any], out: Path, console: Console) -> None:
    """What is made of the figures."""
    (out / "bench.md").write_text(markdown(comparisons, on=on))
    plot(comparisons, out / "bench.png")
    console.print(f"written: {out}/bench.md and bench.png, from bench.json")


if __name__ == "__main__":
    main()
