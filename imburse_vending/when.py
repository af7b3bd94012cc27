"""`imburse-vending when`: the vendor's online timestamp form, at a shell."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Literal

import typer

from imburse_vending import common
from imburse_vending.common import CommandError, ExitCode

MILLISECONDS_ABOVE = 10**11  # protocol.md, section 3
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_DIGITS = re.compile(r"[0-9]{1,15}")

ReadAs = Literal["now", "seconds", "milliseconds", "ISO 8601", "ISO 8601, local time since it says no offset"]

EXAMPLES = """[bold]Examples[/bold]

imburse-vending when 1614350382

imburse-vending when 2021-02-26T14:39:42Z

imburse-vending when    # now
"""


@dataclass(frozen=True)
class Moment:
    """A point in time, in whole seconds since the epoch, and how it was read."""

    seconds: int
    read_as: ReadAs


def read(text: str | None, *, now: float, zone: tzinfo | None = None) -> Moment:
    """Seconds, milliseconds (above 10^11) or ISO 8601; `zone` is local time, the machine's if None. Raises ValueError."""
    if text is None:
        return Moment(int(now), "now")
    if _DIGITS.fullmatch(text) and text.isascii():
        number = int(text)
        milliseconds = number > MILLISECONDS_ABOVE
        return _moment(number // 1000 if milliseconds else number, "milliseconds" if milliseconds else "seconds")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be seconds or milliseconds since 1970, or an ISO 8601 time") from None
    if moment.tzinfo is not None:
        return _moment(moment.timestamp(), "ISO 8601")
    local = moment.replace(tzinfo=zone) if zone else moment.astimezone()
    return _moment(local.timestamp(), "ISO 8601, local time since it says no offset")


def _moment(seconds: float, read_as: ReadAs) -> Moment:
    if not 0 <= seconds <= _LAST_SECOND:
        raise ValueError("must lie in the years 1970 to 9999")
    return Moment(int(seconds), read_as)


def how_long(seconds: float) -> str:
    """`29 min 58 s`, `5 years 271 days`: the two largest units, of the absolute value."""
    left, parts = int(abs(seconds)), []
    for unit, size in (("year", 31_557_600), ("day", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        plural = "s" if number != 1 and size >= 86_400 else ""
        parts.append((number, f"{number} {unit}{plural}"))
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(text for number, text in parts[first : first + 2] if number) or "0 s"


def relative(seconds: float) -> str:
    """`in 5 min`, `5 min ago` or `now`."""
    if int(abs(seconds)) == 0:
        return "now"
    return f"in {how_long(seconds)}" if seconds > 0 else f"{how_long(seconds)} ago"


def when(
    timestamp: Annotated[
        str | None, typer.Argument(metavar="TIMESTAMP", help="Seconds, milliseconds or ISO 8601; now without one.")
    ] = None,
    *,
    as_json: common.AsJson = False,
) -> None:
    """Tell what a timestamp means.

    In UTC, here, and how far from now, as the vendor's online form does. A number above 10^11 is milliseconds.
    """
    now = time.time()
    try:
        moment = read(timestamp, now=now)
    except ValueError as exc:
        raise CommandError(f"TIMESTAMP: {exc}", next_step="imburse-vending when --help", code=ExitCode.USAGE) from None
    utc = datetime.fromtimestamp(moment.seconds, UTC)
    local = utc.astimezone()
    data = {
        "seconds": moment.seconds,
        "milliseconds": moment.seconds * 1000,
        "utc": utc.isoformat().replace("+00:00", "Z"),
        "local": local.isoformat(),
        "secondsFromNow": moment.seconds - int(now),
        "readAs": moment.read_as,
    }
    shown = {
        "UTC": f"{utc:%a %d %B %Y %H:%M:%S}",
        "here": f"{local:%a %d %B %Y %H:%M:%S %Z (UTC%z)}",
        "from now": relative(moment.seconds - int(now)),
        "seconds": moment.seconds,
        "ISO 8601": data["utc"],
        "read as": moment.read_as,
    }
    common.emit(data, common.pairs(shown), as_json=as_json)
