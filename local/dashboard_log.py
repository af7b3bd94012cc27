"""What the functions measured: the embedded metric format in the log that `make serve` writes, `<function> <JSON>` a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_VALUE = 2.0**360  # CloudWatch takes no more
LATEST_MILLISECONDS = 4_102_444_800_000  # the year 2100: no clock is that wrong


@dataclass(frozen=True)
class MetricId:
    """A metric, as CloudWatch tells metrics apart."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]


@dataclass
class Measurements:
    """All samples by metric, each `(Unix seconds, value)` in the log's order, and how many lines there were and were broken."""

    samples: dict[MetricId, list[tuple[float, float]]] = field(default_factory=dict)
    lines: int = 0
    unreadable: int = 0


class _UnreadableError(Exception):
    pass


def read_lines(lines: Iterable[str]) -> Measurements:
    """Reads a log. A line without metrics, which may be plain text, gives nothing; one that is broken is counted besides."""
    found = Measurements()
    for line in lines:
        if not line.strip():
            continue
        found.lines += 1
        try:
            samples = list(_samples(line))
        except _UnreadableError:
            found.unreadable += 1
            continue
        for metric, time_seconds, value in samples:
            found.samples.setdefault(metric, []).append((time_seconds, value))
    return found


def _samples(line: str) -> Iterator[tuple[MetricId, float, float]]:
    text = line.partition(" ")[2]
    if not text.startswith("{"):
        return  # what the runtime says in words, of an error say
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _UnreadableError from exc
    if "_aws" not in document:
        return  # a log line or an audit record
    try:
        time_seconds = _number(document["_aws"]["Timestamp"], least=0, most=LATEST_MILLISECONDS) / 1000
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for metric, value in _metrics(directive, document):
                yield metric, time_seconds, value
    except (LookupError, TypeError, ValueError) as exc:
        raise _UnreadableError from exc


def _metrics(directive: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[tuple[MetricId, float]]:
    """Every value under every set of dimensions; a metric without a value is one that was never measured."""
    for names in directive["Dimensions"]:
        dimensions = frozenset((_text(name), _text(document[name])) for name in names)
        for name in (_text(metric["Name"]) for metric in directive["Metrics"]):
            values = document.get(name, [])
            for value in values if isinstance(values, list) else [values]:
                yield MetricId(_text(directive["Namespace"]), name, dimensions), _number(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object, *, least: float = -MOST_VALUE, most: float = MOST_VALUE) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not least <= value <= most:  # not true of NaN either
        raise ValueError
    return float(value)
