"""The cost sheet: calls, bytes and dollars a million vends, in line, from the pool and shared, and where each quota is reached.

`python -m tests.bench.cost [--out FOLDER] [--prices FILE.json] [--rate N] [--environments N] ...` counts on this machine what
vends use (cost_count.py), takes prices and quotas as inputs (cost_prices.py), and multiplies (cost_sheet.py). Prints tables, and
writes cost.json and, for the README, cost.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.cost_count import Load, counting
from tests.bench.cost_prices import Tariff
from tests.bench.cost_sheet import NOT_COUNTED, Inputs, Limit, Sheet, combinations, monthly
from tests.bench.cost_usage import total


def sheets(load: Load, tariff: Tariff, inputs: Inputs) -> list[Sheet]:
    """One for each mode and door."""
    with counting() as count:
        return [Sheet(mode, door, count(mode, door, load), tariff, inputs) for mode, door in combinations()]


def tables(made: Sequence[Sheet]) -> list[Table]:
    """What is used, what it costs, and what ends it."""
    usages = [(f"{sheet.mode}, {sheet.door}", sheet.usage) for sheet in made]
    usages += [
        (f"of it the refill, {sheet.door}", sheet.counted.refill_per_vend()) for sheet in made if sheet.mode == "pool"
    ]
    used = _table(
        "A vend uses, on average", ["calls", "sent", "received", "write units", "read units", "exchanges", "log"]
    )
    for name, usage in usages:
        used.add_row(
            name,
            f"{total(usage, 'call'):.2f}",
            f"{usage.get('sent', 0):,.0f} B",
            f"{usage.get('received', 0):,.0f} B",
            f"{total(usage, 'write'):.2f}",
            f"{total(usage, 'read'):.2f}",
            f"{usage.get('exchange', 0):.3f}",
            f"{total(usage, 'log'):,.0f} B",
        )
    names = [f"{sheet.mode}, {sheet.door}" for sheet in made]
    paid = _table("A million vends: how many units, and dollars for them", names)
    items = [sheet.items() for sheet in made]
    for row in zip(*items, strict=True):
        cells = (f"{item.amount:,.3g}: {item.dollars:,.2f}" if item.amount else "–" for item in row)
        paid.add_row(f"{row[0].name}, ${row[0].price:.4g} a {row[0].unit}", *cells)
    paid.add_section()
    paid.add_row("together", *(f"{sheet.dollars_per_million():,.2f}" for sheet in made))
    ends = _table("Vends a second at which a limit is reached, at so much of it a vend", names)
    reached = [
        {_quota(limit): f"{limit.vends_per_second:,.0f} at {limit.per_vend:.3g}" for limit in sheet.limits()}
        for sheet in made
    ]
    for quota in sorted({quota for one in reached for quota in one}):
        ends.add_row(quota, *(one.get(quota, "–") for one in reached))
    fixed = _table("Dollars a month, besides the vends", ["dollars"])
    for item, amount in _monthly(made).items():
        fixed.add_row(item, f"{amount:,.2f}")
    return [used, paid, ends, fixed]


def markdown(made: Sequence[Sheet]) -> str:
    """The short form for the README."""
    load, inputs, tariff = made[0].counted.load, made[0].inputs, made[0].tariff
    about = (
        f"Counted at {load.vends_per_second:g} vends a second of one credential in {load.environments} environments, tokens of "
        f"{load.token_characters:,} characters. Prices of {tariff.region} as of {tariff.as_of}; assumed: an exchange takes "
        f"{inputs.upstream_ms:g} ms, a call to DynamoDB {inputs.dynamodb_ms:g} ms. Besides, a stack and its "
        f"credential cost ${sum(_monthly(made).values()):,.0f} a month."
    )
    lines = [
        about,
        "",
        "| vend | AWS calls | bytes to and from AWS | DynamoDB units, write and read | log bytes | $ a million | ends first at, vends/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for sheet in made:
        usage = sheet.usage
        first = [f"{limit.name} {limit.vends_per_second:,.0f}" for limit in sheet.limits() if not limit.condition][:3]
        cells = [
            f"{sheet.mode}, {'by direct invoke' if sheet.door == 'direct' else 'by the API'}",
            f"{total(usage, 'call'):.2f}",
            f"{usage.get('sent', 0) + usage.get('received', 0):,.0f}",
            f"{total(usage, 'write'):.2f} and {total(usage, 'read'):.2f}",
            f"{total(usage, 'log'):,.0f}",
            f"{sheet.dollars_per_million():,.2f}",
            "; ".join(first),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", NOT_COUNTED]) + "\n"


def document(made: Sequence[Sheet]) -> dict[str, Any]:
    """All of it as JSON, with every input."""
    return {
        "load": dataclasses.asdict(made[0].counted.load),
        "inputs": dataclasses.asdict(made[0].inputs),
        "tariff": dataclasses.asdict(made[0].tariff),
        "monthlyDollars": _monthly(made),
        "notCounted": NOT_COUNTED,
        "vends": [
            {
                "mode": sheet.mode,
                "door": sheet.door,
                "seconds": sheet.vend_seconds,
                "usage": sheet.usage,
                "refill": {
                    "runs": sheet.refill_runs,
                    "seconds": sheet.refill_seconds,
                    **sheet.counted.refill_per_vend(),
                },
                "dollarsPerMillion": sheet.dollars_per_million(),
                "items": [{**dataclasses.asdict(item), "dollars": item.dollars} for item in sheet.items()],
                "limits": [
                    {**dataclasses.asdict(limit), "vendsPerSecond": limit.vends_per_second} for limit in sheet.limits()
                ],
            }
            for sheet in made
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, multiply, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(".local/bench"), help="folder for cost.json and cost.md")
    parser.add_argument("--prices", type=Path, help="JSON that changes prices and quotas: tests/bench/cost_prices.py")
    parser.add_argument("--rate", type=float, default=5.0, help="vends a second, counted for five minutes")
    parser.add_argument("--environments", type=int, default=2, help="that share them")
    parser.add_argument("--token-characters", type=int, default=1_000, help="how long an access token is")
    for one in dataclasses.fields(Inputs):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=float, default=one.default)
    options = vars(parser.parse_args(arguments))
    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # of features that SAM has and we do not use
    out: Path = options["out"]
    tariff = Tariff.read(options["prices"]) if options["prices"] else Tariff()
    inputs = Inputs(**{one.name: options[one.name] for one in dataclasses.fields(Inputs)})
    load = Load(options["rate"], options["environments"], options["token_characters"])
    made = sheets(load, tariff, inputs)
    console = Console(width=200)
    for table in tables(made):
        console.print(table)
    console.print(
        f"{NOT_COUNTED}\n{load}\n{inputs}\nprices of {tariff.region}, {tariff.as_of}: tests/bench/cost_prices.py"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "cost.json").write_text(json.dumps(document(made), indent=1) + "\n")
    (out / "cost.md").write_text(markdown(made))
    console.print(f"written: {out}/cost.json and cost.md")


def _quota(limit: Limit) -> str:
    """Its name and size; a partition's is a share of both its units, and the whole is 1."""
    much = "" if limit.quota == 1 else f", {limit.quota:,.0f}"
    return f"{limit.name}{much}" + (f", {limit.condition}" if limit.condition else "")


def _monthly(made: Sequence[Sheet]) -> dict[str, float]:
    metrics = frozenset[tuple[str, ...]]().union(*(sheet.counted.metrics for sheet in made))
    return monthly(made[0].tariff, made[0].inputs, len(metrics))


def _table(title: str, columns: Sequence[str]) -> Table:
    made = Table(title=title, title_justify="left")
    made.add_column("")
    for column in columns:
        made.add_column(column, justify="right")
    return made


if __name__ == "__main__":
    main()
