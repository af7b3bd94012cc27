"""A CloudWatch dashboard's body, as far as it can be drawn here. What cannot is an error and is not left out of the picture.

Format: "Dashboard body structure and syntax" in the CloudWatch API reference. Known here: metric widgets as time series, whose
metrics are written out or found by SEARCH (local/dashboard_math.py), two axes, and horizontal annotations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.dashboard_log import MetricId

WIDTH = 24
"""How many columns CloudWatch's grid has."""

_WIDGET = {"type", "x", "y", "width", "height", "properties"}
_PROPERTIES = {"title", "region", "view", "stacked", "period", "yAxis", "annotations", "metrics"}
_OPTIONS = {"id", "label", "expression", "stat", "visible", "yAxis"}


class DashboardError(Exception):
    """The picture cannot be drawn; the message is one line and names the widget or the file."""


@dataclass(frozen=True)
class Entry:
    """One entry of a widget's metrics: an expression, or a metric and its statistic."""

    id: str
    label: str
    expression: str | None
    metric: MetricId | None
    statistic: str
    visible: bool
    on_the_right: bool


@dataclass(frozen=True)
class Axis:
    """What an axis says, and where it ends if that is set."""

    label: str = ""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Panel:
    """One widget. `x`, `y`, `width` and `height` are grid units; `limits` are lines across, each `(label, value)`."""

    title: str
    x: int
    y: int
    width: int
    height: int
    stacked: bool
    period_seconds: int
    left: Axis
    right: Axis
    limits: tuple[tuple[str, float], ...]
    entries: tuple[Entry, ...]


def read_panels(body: str) -> tuple[Panel, ...]:
    """The widgets in reading order: by row, then by column. Raises DashboardError."""
    try:
        widgets = json.loads(body)["widgets"]
        panels = [_panel(widget) for widget in widgets]
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise DashboardError(f"the dashboard's body is not as CloudWatch wants it: {exc!r}") from exc
    return tuple(sorted(panels, key=lambda panel: (panel.y, panel.x)))


def _panel(widget: Mapping[str, Any]) -> Panel:
    properties = widget["properties"]
    title = properties["title"]
    _only(_WIDGET, widget, title)
    _only(_PROPERTIES, properties, title)
    if (widget["type"], properties.get("view", "timeSeries")) != ("metric", "timeSeries"):
        raise DashboardError(f"{title}: only metric widgets with the view timeSeries can be drawn here")
    axes = properties.get("yAxis", {})
    return Panel(
        title=title,
        x=int(widget["x"]),
        y=int(widget["y"]),
        width=int(widget["width"]),
        height=int(widget["height"]),
        stacked=properties.get("stacked", False),
        period_seconds=int(properties["period"]),
        left=_axis(axes.get("left", {})),
        right=_axis(axes.get("right", {})),
        limits=tuple(
            (line["label"], float(line["value"])) for line in properties.get("annotations", {}).get("horizontal", [])
        ),
        entries=tuple(_entry(entry, title) for entry in properties["metrics"]),
    )


def _axis(axis: Mapping[str, Any]) -> Axis:
    return Axis(axis.get("label", ""), axis.get("min"), axis.get("max"))


def _entry(entry: list[Any], title: str) -> Entry:
    """`[{options}]` with an expression, or `[namespace, name, dimension, value, ..., {options}]`."""
    *words, options = entry if isinstance(entry[-1], dict) else [*entry, {}]
    _only(_OPTIONS, options, title)
    metric = None
    if "expression" not in options:
        namespace, name, *rest = words
        if any(word.startswith(".") for word in words):
            raise DashboardError(f"{title}: a metric must be written out, without '.' for the one before")
        metric = MetricId(namespace, name, frozenset(zip(rest[::2], rest[1::2], strict=True)))
    return Entry(
        id=options.get("id", ""),
        label=options.get("label", options.get("expression") or " ".join(words[1:])),
        expression=options.get("expression"),
        metric=metric,
        statistic=options.get("stat", "Average"),
        visible=options.get("visible", True),
        on_the_right=options.get("yAxis") == "right",
    )


def _only(known: set[str], given: Mapping[str, Any], title: str) -> None:
    if unknown := sorted(set(given) - known):
        raise DashboardError(f"{title}: {', '.join(unknown)} cannot be drawn here")
