"""The panels as Plotly's figures: what CloudWatch shows, as near as another library comes to it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from local.dashboard_definition import Axis, Panel
from local.dashboard_math import Series

LEAST_RANGE_SECONDS = 900
MOST_TICKS = 8
MANY_POINTS = 60
TICK_SECONDS = (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)
LONGEST_NAME = 80
ROOM = 0.02
"""How much of an axis is left free at its end, so that what lies on the edge is seen whole."""

# Told apart also by who sees few colours (after Okabe and Ito), the pale yellow left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195", "#6C757D")
DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "diamond-open", "square-open", "x-thin-open")

FONTS = '"Open Sans", "Segoe UI", Helvetica, Arial, sans-serif'
GRID = {"gridcolor": "#e9ecef", "zeroline": False, "linecolor": "#d5dbdb"}
NOTHING = "nothing was measured"

Drawn = Sequence[tuple[Panel, Sequence[Series]]]
"""Each panel and its lines."""


def shown_time(drawn: Drawn) -> str:
    """From when to when the panels show something."""
    span = _span(drawn)
    return "no time at all" if span is None else f"{_moment(span[0])[:-3]} to {_moment(span[1])[:-3]}"


def plots(drawn: Drawn) -> list[dict[str, Any]]:
    """A figure a panel, `{"data", "layout"}`, all over the same time."""
    span = _span(drawn)
    return [_plot(panel, series, span) for panel, series in drawn]


def plain(text: str) -> str:
    """A name as Plotly shows it to the letter: no tag, no entity, no control character, and not too long."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    if len(shown) > LONGEST_NAME:
        shown = shown[: LONGEST_NAME - 1] + "…"
    return html.escape(shown, quote=False)  # Plotly knows no entity for a quote, and needs none where no tag is left


def _span(drawn: Drawn) -> tuple[float, float] | None:
    """First and last moment of any point, so that all panels show the same time, as CloudWatch does."""
    starts = [(start, panel.period_seconds) for panel, series in drawn for line in series for start in line.values]
    if not starts:
        return None
    first, last = min(start for start, _ in starts), max(start + seconds for start, seconds in starts)
    return first, max(last, first + LEAST_RANGE_SECONDS)


def _moment(time_seconds: float) -> str:
    """UTC, without saying so: Plotly then shows the time as it stands, wherever it is looked at."""
    return datetime.fromtimestamp(time_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _plot(panel: Panel, series: Sequence[Series], span: tuple[float, float] | None) -> dict[str, Any]:
    """Where lines are stacked, each has a colour; else each set of dimensions has one, and each entry a dash."""
    groups = list(dict.fromkeys(line.dimensions for line in series))
    styles = [entry for entry in panel.entries if entry.visible]
    data = [
        _bars(panel, line, COLOURS[number % len(COLOURS)])
        if panel.stacked
        else _line(panel, line, COLOURS[groups.index(line.dimensions) % len(COLOURS)], styles.index(line.entry))
        for number, line in enumerate(series)
    ]
    return {"data": data, "layout": _layout(panel, series, span)}


def _bars(panel: Panel, line: Series, colour: str) -> dict[str, Any]:
    # Counts stand for their whole period and are zero where there is none: areas would slope over hours without a call.
    return {
        "type": "bar",
        "name": plain(line.name),
        "x": [_moment(start) for start in line.values],
        "y": list(line.values.values()),
        "offset": 0,
        "width": panel.period_seconds * 1000 * 0.94,
        "marker": {"color": colour},
        "yaxis": "y2" if line.entry.on_the_right else "y",
    }


def _line(panel: Panel, line: Series, colour: str, style: int) -> dict[str, Any]:
    moments: list[str] = []
    values: list[float | None] = []
    previous = None
    for start, value in line.values.items():
        if previous is not None and start - previous > panel.period_seconds:
            moments.append(_moment(previous + panel.period_seconds))  # a gap stays one
            values.append(None)
        moments.append(_moment(start))
        values.append(value)
        previous = start
    return {
        "type": "scatter",
        "name": plain(line.name),
        "x": moments,
        "y": values,
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2, "dash": DASHES[style % len(DASHES)]},
        "marker": {
            "color": colour,
            "size": 6 if len(values) <= MANY_POINTS else 3,
            "symbol": MARKERS[style % len(MARKERS)],
        },
        "yaxis": "y2" if line.entry.on_the_right else "y",
    }


def _layout(panel: Panel, series: Sequence[Series], span: tuple[float, float] | None) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "font": {"family": FONTS, "size": 12, "color": "#16191f"},
        "margin": {"l": 56, "r": 20, "t": 10, "b": 30},
        "barmode": "stack",
        "hovermode": "x unified",
        "hoverlabel": {"namelength": -1},
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": -0.18,
            "yanchor": "top",
            "maxheight": 0.4,
            "font": {"size": 11},
            "traceorder": "normal",
        },
        "xaxis": {"type": "date", **GRID, **_ticks(span)},
        "yaxis": _y_axis(panel.left),
    }
    if any(line.entry.on_the_right for line in series):
        layout["yaxis2"] = {
            **_y_axis(panel.right),
            "overlaying": "y",
            "side": "right",
            "showgrid": False,
            "tickmode": "auto",
        }
        layout["margin"]["r"] = 56
    if series:
        layout["shapes"] = [_across(value) for _, value in panel.limits]
        layout["annotations"] = [_said(plain(label), 1, value, yref="y") for label, value in panel.limits]
    else:
        layout["xaxis"]["visible"] = layout["yaxis"]["visible"] = False
        layout["annotations"] = [_said(NOTHING, 0.5, 0.5, yref="paper")]
    return layout


def _ticks(span: tuple[float, float] | None) -> dict[str, Any]:
    """The same time and ticks in every panel: left to itself, Plotly takes them from how far bars are apart."""
    if span is None:
        return {}
    seconds = span[1] - span[0]
    step = next((step for step in TICK_SECONDS if seconds / step <= MOST_TICKS), seconds / MOST_TICKS)
    return {
        "range": [_moment(span[0] - seconds * ROOM), _moment(span[1])],
        "tick0": "2000-01-01",
        "dtick": step * 1000,
        "tickformat": "%H:%M" if seconds < 86_400 else "%d %b %H:%M",
    }


def _across(value: float) -> dict[str, Any]:
    line = {"color": "#B00020", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}


def _said(text: str, x: float, y: float, *, yref: str) -> dict[str, Any]:
    anchors = {"xanchor": "right", "yanchor": "bottom"} if yref == "y" else {}
    font = {"color": "#687078"}
    return {"text": text, "showarrow": False, "font": font, "xref": "paper", "yref": yref, "x": x, "y": y, **anchors}


def _y_axis(axis: Axis) -> dict[str, Any]:
    shown: dict[str, Any] = {"title": {"text": plain(axis.label), "standoff": 8, "font": {"size": 11}}, **GRID}
    if axis.least is None or axis.most is None:
        return {**shown, "rangemode": "tozero"}
    room = (axis.most - axis.least) * ROOM
    return {**shown, "range": [axis.least - room, axis.most + 2 * room]}
