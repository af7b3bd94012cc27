"""CloudWatch's arithmetic, as much of it as the dashboard uses.

A metric's statistic a period; SEARCH('{Namespace,dimension,...} MetricName="..."', 'statistic') for every metric with just
these dimensions; and + - * / of ids and numbers with FILL(id, number). Where a term has no value, or one would divide by zero,
there is no point, as in CloudWatch.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from local.dashboard_definition import DashboardError, Entry, Panel
from local.dashboard_log import Measurements, MetricId

MOST_SERIES = 500
"""What one SEARCH finds at most, in CloudWatch as well."""

Values = Mapping[int, float]
"""By the start of the period, in Unix seconds."""

_SEARCH = re.compile(
    r"""SEARCH\('\{(?P<schema>[^{}']+)\} MetricName="(?P<name>[^"']+)"', '(?P<statistic>[^']+)'\)""", re.ASCII
)
_PERCENTILE = re.compile(r"p([0-9]{1,2}(?:\.[0-9]+)?)")
_DYNAMIC_LABEL = re.compile(r"\$\{PROP\('Dim\.([^']+)'\)\}")
_STATISTICS: Mapping[str, Callable[[list[float]], float]] = {
    "Sum": math.fsum,
    "Average": lambda values: math.fsum(values) / len(values),
    "Minimum": min,
    "Maximum": max,
    "SampleCount": len,
}
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Series:
    """One line of a panel. `name` may hold anything, since a dimension's value is part of it."""

    name: str
    entry: Entry
    dimensions: tuple[tuple[str, str], ...]
    values: Values


def evaluate(panel: Panel, measured: Measurements) -> list[Series]:
    """The visible lines of a panel that have a point, in the order of its entries. Raises DashboardError."""
    by_id = {
        entry.id: _aggregate(measured.samples.get(entry.metric, ()), entry.statistic, panel)
        for entry in panel.entries
        if entry.metric is not None
    }
    series = [line for entry in panel.entries if entry.visible for line in _lines(entry, panel, measured, by_id)]
    return [line for line in series if line.values]


def _lines(entry: Entry, panel: Panel, measured: Measurements, by_id: Mapping[str, Values]) -> Iterator[Series]:
    if entry.metric is not None:
        yield _series(entry, entry.metric.dimensions, by_id[entry.id])
    elif entry.expression is not None and entry.expression.startswith("SEARCH("):
        for metric, statistic in _search(entry.expression, panel, measured):
            yield _series(entry, metric.dimensions, _aggregate(measured.samples[metric], statistic, panel))
    else:
        yield _series(entry, (), _calculate(entry.expression or "", panel, by_id))


def _series(entry: Entry, dimensions: Iterable[tuple[str, str]], values: Values) -> Series:
    known = dict(dimensions)
    name = _DYNAMIC_LABEL.sub(lambda match: known.get(match[1], match[0]), entry.label)
    return Series(name, entry, tuple(sorted(known.items())), values)


def _search(expression: str, panel: Panel, measured: Measurements) -> list[tuple[MetricId, str]]:
    found = _SEARCH.fullmatch(expression)
    if found is None:
        raise DashboardError(f"{panel.title}: {expression}: this SEARCH is not of the kind that is known here")
    namespace, *names = (part.strip() for part in found["schema"].split(","))
    metrics = [
        metric
        for metric in measured.samples
        if (metric.namespace, metric.name) == (namespace, found["name"])
        and {name for name, _ in metric.dimensions} == set(names)
    ]
    metrics.sort(key=lambda metric: sorted(metric.dimensions))
    return [(metric, found["statistic"]) for metric in metrics[:MOST_SERIES]]


def _aggregate(samples: Iterable[tuple[float, float]], statistic: str, panel: Panel) -> Values:
    periods: dict[int, list[float]] = {}
    for time_seconds, value in samples:
        start = int(time_seconds // panel.period_seconds) * panel.period_seconds
        periods.setdefault(start, []).append(value)
    return {start: _statistic(statistic, periods[start], panel) for start in sorted(periods)}


def _statistic(statistic: str, values: list[float], panel: Panel) -> float:
    if percentile := _PERCENTILE.fullmatch(statistic):
        values = sorted(values)
        place = (len(values) - 1) * float(percentile[1]) / 100
        below, above = values[math.floor(place)], values[math.ceil(place)]
        return below + (above - below) * (place % 1)
    if statistic not in _STATISTICS:
        raise DashboardError(f"{panel.title}: {statistic}: this statistic is not known here")
    return float(_STATISTICS[statistic](values))


def _calculate(expression: str, panel: Panel, by_id: Mapping[str, Values]) -> Values:
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as exc:
        raise DashboardError(f"{panel.title}: {expression}: is no expression") from exc
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"FILL"}
    if unknown := sorted(used - set(by_id)):
        raise DashboardError(f"{panel.title}: {expression}: there is no metric with the id {', '.join(unknown)}")
    values = {}
    for start in sorted({start for name in used for start in by_id[name]}):
        value = _value(tree, start, panel, by_id)
        if value is not None:
            values[start] = value
    return values


def _value(node: ast.expr, start: int, panel: Panel, by_id: Mapping[str, Values]) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return by_id[name].get(start)
        case ast.Call(
            func=ast.Name(id="FILL"), args=[term, ast.Constant(value=int() | float() as number)], keywords=[]
        ):
            value = _value(term, start, panel, by_id)
            return float(number) if value is None else value
        case ast.BinOp(left=first, op=sign, right=second) if type(sign) in _OPERATORS:
            left, right = _value(first, start, panel, by_id), _value(second, start, panel, by_id)
            if left is None or right is None or (isinstance(sign, ast.Div) and right == 0):
                return None
            return _OPERATORS[type(sign)](left, right)
    raise DashboardError(f"{panel.title}: {ast.unparse(node)}: this arithmetic is not known here")
