"""How the audit commands show what they found: as JSON members, and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from imburse_vending.audit_chain import Chain, Finding
from imburse_vending.audit_shown import Row
from imburse_vending.common import printable

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

_UNSEEN = (
    "Not seen by a chain: the last records of an environment cut off or changed, a whole environment left out, all of its "
    "records from one on written anew; --expect sees these, against what --json said earlier. And records that were added "
    "behind the last, or an environment that was made up: nobody but the functions may write to their log."
)
_SHOWN_TOKENS = 1
_SHOWN_FINDINGS = 50
_WHOLE = ("time", "what", "last expires", "request id")  # to be copied from the screen


def environment(chain: Chain) -> dict[str, Any]:
    """What is known of a chain; `last` and `sha256` are what --expect looks for later."""
    first, last = chain.ends()
    return {
        "environment": chain.environment,
        "records": len(chain.entries),
        "first": first.sequence,
        "last": last.sequence,
        "begin": first.time,
        "end": last.time,
        "sha256": last.digest,
        "writtenAgain": len(chain.void),
    }


def finding(found: Finding) -> dict[str, Any]:
    """A finding without what it does not know."""
    members = asdict(found) | {"file": str(found.file) if found.file else None}
    return {name: value for name, value in members.items() if value is not None}


def verified(data: dict[str, Any], findings: list[Finding]) -> Group:
    """The findings, what they sum up to, and what a chain cannot see."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("where", "environment", "record", "what", ""):
        table.add_column(heading, overflow="fold")
    for found in findings[:_SHOWN_FINDINGS]:
        where = f"{found.file}:{found.line}" if found.file else "-"
        cells = (where, (found.environment or "-")[:12], str(found.sequence or "-"), found.what, found.detail)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    again = sum(one["writtenAgain"] for one in data["environments"])
    summary = f"{data['records']} records of {len(data['environments'])} environments: "
    summary += f"{len(findings)} findings" if findings else "nothing is missing, changed or added"
    if again:
        summary += f"; {again} could not be written, were found all the same, and gave nobody anything"
    if len(findings) > _SHOWN_FINDINGS:
        summary += f", the first {_SHOWN_FINDINGS} of them above; --json has them all"
    shown = [Text(summary, "red" if findings else "green"), Text(_UNSEEN, "dim")]
    return Group(*([table] if findings else []), *shown)


def row(one: Row) -> dict[str, Any]:
    """A row in full."""
    record = one.record
    members = {
        "time": utc(one.time),
        "what": one.what,
        **{
            name: record.get(name)
            for name in ("credential", "caller", "through", "door", "sourceIp", "count", "policies")
        },
        "tokens": [{"sha256": fingerprint, "expires": utc(expires)} for fingerprint, expires in one.tokens],
        **{
            name: record.get(name) for name in ("brake", "key", "requestId", "correlationId", "environment", "sequence")
        },
        "file": str(one.file),
        "line": one.line,
    }
    return {name: value for name, value in members.items() if value not in (None, [])}


def shown(rows: Sequence[Row]) -> RenderableType:
    """The rows as a table, tokens shortened; in words if there is none."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return Text("no such record: as far as these files tell, nobody had such a token then")
    table = Table(box=None, pad_edge=False)
    for heading in ("time", "what", "caller", "door", "count", "policies", "tokens", "last expires", "request id"):
        table.add_column(heading, overflow="fold", no_wrap=heading in _WHOLE)
    for one in rows:
        record = one.record
        cells = (
            utc(one.time),
            one.what,
            record.get("caller", "-"),
            record.get("door", "-"),
            record.get("count", "-"),
            _listed(record.get("policies")),
            _told(one),
            utc(one.expires) if one.expires else "-",
            record.get("requestId", "-"),
        )
        table.add_row(*(Text(printable(str(cell))) for cell in cells))
    return table


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "-"


def _told(row: Row) -> str:
    """The fingerprints, the first few and shortened; of an order or a key what it was about."""
    about = row.record.get("brake") or row.record.get("key")
    if isinstance(about, dict):
        return ", ".join(f"{name} {value}" for name, value in about.items() if name != "operate")
    more = len(row.tokens) - _SHOWN_TOKENS
    shown = ", ".join(fingerprint[:12] for fingerprint, _ in row.tokens[:_SHOWN_TOKENS])
    return f"{shown}, {more} more" if more > 0 else shown or "-"


def utc(moment: datetime) -> str:
    """ISO 8601 in UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
