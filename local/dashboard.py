"""`python -m local dashboard`: the template's CloudWatch dashboard, drawn from what the local stack's functions measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local.dashboard_definition import DashboardError, Panel, read_panels
from local.dashboard_log import Measurements, read_lines
from local.dashboard_math import Series, evaluate
from local.dashboard_page import render
from local.dashboard_plot import shown_time
from local.stack import ACCOUNT_ID, PROJECT, REGION, STACK_NAME, STAGE
from local.template import TemplateError, read_application


@dataclass(frozen=True)
class Picture:
    """The page, what it shows by panel, and what the log held."""

    html: str
    drawn: list[tuple[Panel, list[Series]]]
    measured: Measurements


def main(log: Path, out: Path) -> int:
    """Draw `log` into `out`. Answers the exit status: 0, or 1 with one line on standard error that says why."""
    try:
        picture = draw(log)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(picture.html, encoding="utf-8")
    except (DashboardError, TemplateError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"error: {out}: cannot be written: {exc.strerror}", file=sys.stderr)
        return 1
    print("\n".join(_summary(picture, log, out)))
    return 0


def draw(log: Path) -> Picture:
    """The dashboard of template.yaml over the metrics in a log. Raises DashboardError, TemplateError."""
    name, panels = panels_of_template()
    measured = _read(log)
    drawn = [(panel, evaluate(panel, measured)) for panel in panels]
    about = f"What the functions of a local stack measured, from {log.name}: {shown_time(drawn)} UTC."
    return Picture(render(name, drawn, about=about), drawn, measured)


def panels_of_template() -> tuple[str, tuple[Panel, ...]]:
    """The dashboard's name and its panels in reading order. Raises DashboardError, TemplateError."""
    application = read_application(
        PROJECT / "template.yaml", {"Stage": STAGE}, stack_name=STACK_NAME, region=REGION, account_id=ACCOUNT_ID
    )
    (dashboard,) = application.dashboards
    return dashboard.name, read_panels(dashboard.body)


def _read(log: Path) -> Measurements:
    try:
        # Bytes that are no UTF-8 must not hide the rest.
        with log.open(encoding="utf-8", errors="replace") as lines:
            return read_lines(lines)
    except FileNotFoundError as exc:
        raise DashboardError(f"{log}: there is no log yet; `make serve` writes it") from exc
    except OSError as exc:
        raise DashboardError(f"{log}: cannot be read: {exc.strerror}") from exc


def _summary(picture: Picture, log: Path, out: Path) -> Iterator[str]:
    measured = picture.measured
    yield f"{out}"
    yield f"from {log}: {measured.lines} lines, {len(measured.samples)} metrics"
    if measured.unreadable:
        yield f"lines that could not be read, and were skipped: {measured.unreadable}"
    for panel, series in picture.drawn:
        points = sum(len(line.values) for line in series)
        yield f"  {panel.title:<44}{len(series):>4} lines {points:>6} points"
