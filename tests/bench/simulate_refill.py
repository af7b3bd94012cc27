"""What the refill rule does under demand from one a minute to a thousand a second, second by second, without a cloud.

`python -m tests.bench.simulate_refill [--out FOLDER] [--sweep]` prints a table and writes refill.json and refill.png. It runs the
rule itself (`vending.supply.refill.target` and its constants) on a pool of counted tokens; `--sweep` also tries other constants.
Same seed, same figures: the constants in refill.py and pool.py are chosen from this.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from vending.supply import pool, refill
from vending.supply.waker import EVERY_SECONDS

LIFE_SECONDS = 1800
LEAST_SECONDS = 300  # what a claim asks for when it asks for nothing
REFILL_STARTS_SECONDS = 1  # an asynchronous invoke, and a cold start more often than not
TOKENS_PER_SECOND = 160  # 32 connections, and Imburse takes 200 ms
HOURS = 4
POOL_MIN, POOL_MAX = 10, 10_000
SEED = 3

Demand = NDArray[np.float64]  # tokens wanted, a second

RATES = {"1/min": 1 / 60, "10/min": 1 / 6, "1/s": 1.0, "10/s": 10.0, "100/s": 100.0, "1000/s": 1000.0}
SWEPT_RATES = ("10/min", "1/s", "10/s")


@dataclass(frozen=True)
class Rule:
    """The constants of the rule."""

    cover_minutes: float = refill.COVER_MINUTES
    low_mark: float = refill.LOW_MARK
    demand_minutes: int = pool.DEMAND_MINUTES

    def __str__(self) -> str:
        return f"cover {self.cover_minutes:g} min, low mark {self.low_mark:g}, busiest of {self.demand_minutes} min"


@dataclass(frozen=True)
class Outcome:
    """What a few hours came to. `outage_seconds` is how long the pool alone would last at the mean demand,
    the median over the time."""

    rate: str
    shape: str
    vends: int
    hit_rate: float
    wasted: int
    exchanges_per_vend: float
    mean_depth: float
    outage_seconds: float


def steady(rate: float, seconds: int) -> Demand:
    """The same all day."""
    return np.full(seconds, rate)


def bursts(rate: float, seconds: int) -> Demand:
    """Every ten minutes, twenty seconds with ten times as much."""
    return np.where(np.arange(seconds) % 600 < 20, rate * 10, rate)


def on_and_off(rate: float, seconds: int) -> Demand:
    """Half an hour of work, half an hour of nothing."""
    return np.where(np.arange(seconds) % 3600 < 1800, rate, 0.0)


def jobs(rate: float, seconds: int) -> Demand:
    """Every five minutes a job that wants all of them within a second."""
    return np.where(np.arange(seconds) % 300 == 150, rate * 300, 0.0)


def tide(rate: float, seconds: int) -> Demand:
    """Up and down once in two hours, from a twentieth to the whole."""
    return rate * (0.525 - 0.475 * np.cos(np.arange(seconds) * 2 * np.pi / 7200))


Shape = Callable[[float, int], Demand]
SHAPES: tuple[Shape, ...] = (steady, bursts, on_and_off, jobs, tide)


class Tokens:
    """A pool as counts by expiry, soonest first."""

    def __init__(self) -> None:
        self._by_expiry: deque[list[int]] = deque()
        self.depth = self.wasted = 0

    def put(self, now: int, count: int) -> None:
        """Add tokens that were exchanged this second."""
        self._by_expiry.append([now + LIFE_SECONDS, count])
        self.depth += count

    def expire(self, now: int) -> None:
        """Drop what no ordinary claim would take any more."""
        while self._by_expiry and self._by_expiry[0][0] < now + LEAST_SECONDS:
            count = self._by_expiry.popleft()[1]
            self.wasted += count
            self.depth -= count

    def lasting(self, now: int) -> int:
        """How many a refill counts."""
        ending = 0
        for expires, count in self._by_expiry:
            if expires >= now + refill.LEAST_SECONDS:
                break
            ending += count
        return self.depth - ending

    def claim(self, count: int) -> int:
        """Take up to so many; answers how many."""
        missing = count
        while missing and self._by_expiry:
            taken = min(missing, self._by_expiry[0][1])
            self._by_expiry[0][1] -= taken
            missing -= taken
            if not self._by_expiry[0][1]:
                self._by_expiry.popleft()
        self.depth -= count - missing
        return count - missing


def simulate(rule: Rule, rate_name: str, shape: Shape, *, hours: int = HOURS) -> Outcome:
    """Run one credential's pool through the hours. The first half hour, with an empty pool, is not counted."""
    seconds = hours * 3600
    demand = shape(RATES[rate_name], seconds)
    arrivals: Sequence[int] = np.random.default_rng(SEED).poisson(demand).tolist()
    tokens = Tokens()
    by_minute: deque[int] = deque([0], maxlen=rule.demand_minutes)
    starts_at: int | None = None
    woken_at, mark, missing = -EVERY_SECONDS, 0, 0
    vends = hits = filled = wasted_before = depths = 0
    outages: list[float] = []
    mean_demand = float(demand.mean())
    with mock.patch.multiple(refill, COVER_MINUTES=rule.cover_minutes, LOW_MARK=rule.low_mark):
        for now, wanted in enumerate(arrivals):
            if now == 1800:
                vends = hits = filled = depths = 0
                wasted_before = tokens.wasted
            if now % 60 == 0:
                by_minute.append(0)
                starts_at = starts_at or now
            tokens.expire(now)
            if not missing and starts_at is not None and now >= starts_at:
                aim = refill.target(max(by_minute), POOL_MIN, POOL_MAX)
                mark, starts_at = refill.low_mark(aim), None
                missing = max(0, min(aim - tokens.lasting(now), refill.EXCHANGES_PER_RUN))
            if missing:
                fresh = min(TOKENS_PER_SECOND, missing)
                tokens.put(now, fresh)
                filled, missing = filled + fresh, missing - fresh
            claimed = tokens.claim(wanted)
            by_minute[-1] += wanted
            vends, hits, depths = vends + wanted, hits + claimed, depths + tokens.depth
            if wanted and tokens.depth <= mark and now - woken_at >= EVERY_SECONDS:
                woken_at, starts_at = now, starts_at or now + REFILL_STARTS_SECONDS
            if now >= 1800 and demand[now] > 0:
                outages.append(min(tokens.depth / mean_demand, LIFE_SECONDS - LEAST_SECONDS))
    missed = vends - hits
    return Outcome(
        rate_name,
        shape.__name__,
        vends,
        hits / vends,
        tokens.wasted - wasted_before,
        (filled + missed) / vends,
        depths / (seconds - 1800),
        float(np.median(outages)),
    )


def simulate_all(rule: Rule, *, hours: int = HOURS) -> list[Outcome]:
    """Every rate in every shape."""
    return [simulate(rule, rate, shape, hours=hours) for rate in RATES for shape in SHAPES]


def table(rule: Rule, outcomes: Sequence[Outcome]) -> Table:
    """The outcomes as a table for a terminal."""
    shown = Table(title=f"Refill rule: {rule}; pool {POOL_MIN} to {POOL_MAX}, {HOURS} hours", title_justify="left")
    for heading in ("demand", "shape"):
        shown.add_column(heading)
    for heading in ("vends", "from the pool", "wasted", "exchanges a vend", "mean depth", "lasts without Imburse"):
        shown.add_column(heading, justify="right")
    for outcome in outcomes:
        shown.add_row(
            outcome.rate,
            outcome.shape.replace("_", " "),
            f"{outcome.vends:,}",
            f"{outcome.hit_rate:.1%}",
            f"{outcome.wasted:,}",
            f"{outcome.exchanges_per_vend:.2f}",
            f"{outcome.mean_depth:,.0f}",
            f"{outcome.outage_seconds:,.0f} s",
        )
    return shown


def sweep() -> Table:
    """Other constants, each over the demands where neither the floor nor the ceiling decides for the rule."""
    shown = Table(title="Other constants, at 10/min to 10/s, 3 hours", title_justify="left")
    headings = ("cover", "low mark", "minutes", "from the pool", "worst", "exchanges a vend", "worst", "lasts (steady)")
    for heading in headings:
        shown.add_column(heading, justify="right")
    for cover in (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0):
        for low_mark in (0.25, 0.5, 0.75):
            for minutes in (2, 5, 10):
                rule = Rule(cover, low_mark, minutes)
                found = [simulate(rule, rate, shape, hours=3) for rate in SWEPT_RATES for shape in SHAPES]
                rates, costs = [o.hit_rate for o in found], [o.exchanges_per_vend for o in found]
                lasts = min(o.outage_seconds for o in found if o.shape == "steady")
                row = (np.mean(rates), min(rates), np.mean(costs), max(costs))
                shown.add_row(
                    f"{cover:g}",
                    f"{low_mark:g}",
                    str(minutes),
                    f"{row[0]:.1%}",
                    f"{row[1]:.1%}",
                    f"{row[2]:.2f}",
                    f"{row[3]:.2f}",
                    f"{lasts:.0f} s",
                )
    return shown


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """The same as three small pictures: from the pool, exchanges a vend, and how long it lasts, by demand."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    pictures: tuple[tuple[str, Callable[[Outcome], float]], ...] = (
        ("from the pool, %", lambda o: 100 * o.hit_rate),
        ("exchanges a vend", lambda o: o.exchanges_per_vend),
        ("lasts without Imburse, s", lambda o: o.outage_seconds),
    )
    for axis, (title, value) in zip(axes, pictures, strict=True):
        for shape in SHAPES:
            axis.plot(
                list(RATES),
                [value(outcome) for outcome in outcomes if outcome.shape == shape.__name__],
                marker="o",
                label=shape.__name__.replace("_", " "),
            )
        axis.set_title(title)
        axis.set_xlabel("demand")
        axis.grid(alpha=0.3)
    axes[1].set_yscale("log")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(".local/bench"), help="folder for refill.json and refill.png")
    parser.add_argument("--sweep", action="store_true", help="try other constants too, which takes a few minutes")
    options = parser.parse_args(arguments)
    console = Console(width=120)
    rule = Rule()
    outcomes = simulate_all(rule)
    console.print(table(rule, outcomes))
    if options.sweep:
        console.print(sweep())
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"rule": dataclasses.asdict(rule), "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}
    (options.out / "refill.json").write_text(json.dumps(document, indent=1) + "\n")
    plot(outcomes, options.out / "refill.png")
    console.print(f"written: {options.out}/refill.json and refill.png")


if __name__ == "__main__":
    main()
