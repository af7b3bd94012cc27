"""How the policy commands show what they found: as JSON members, and for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from imburse_vending.common import printable
from imburse_vending.policy_ask import ranges, written
from imburse_vending.policy_explain import spans
from imburse_vending.policy_who import budget_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from imburse_vending.policy_check import Finding
    from imburse_vending.policy_explain import Explanation
    from imburse_vending.policy_files import PolicyFile
    from imburse_vending.policy_replay import Difference, Replay
    from imburse_vending.policy_who import Access
    from vending.access.rules import RuleBook


def checked(found: Mapping[str, Sequence[Finding]]) -> RenderableType:
    """Findings by file."""
    rows = [
        (f"{name}:{one.line}", one.level, one.rule or "-", one.problem + (f" ({one.hint})" if one.hint else ""))
        for name, findings in found.items()
        for one in findings
    ]
    clean = [name for name, findings in found.items() if not findings]
    return Group(
        *([_table(("where", "", "rule", "what"), rows)] if rows else []),
        *(Text(f"{name}: nothing found", "green") for name in clean),
    )


def explained(file: PolicyFile, said: Explanation, named_as: str, *, brief: bool = False) -> RenderableType:
    """The decision, and unless it is to be brief the rules, and of a denial what is near."""
    question = said.question
    what = f"{question.action} {written(question.resource)}"
    if question.action == "vend":
        what += f", count {question.count}"
    door = [("via", question.caller.via), ("source IP", question.caller.source_ip), ("vpce", question.caller.vpce)]
    what += "".join(f", {name} {value}" for name, value in door if value)
    verdict = Text("allowed", "bold green") if said.decision.allowed else Text("denied", "bold red")
    parts: list[RenderableType] = [Text.assemble(f"{file.name}: ", verdict, f": {question.caller.id}: {what}")]
    if brief:
        return parts[0]
    if named_as != question.caller.id:
        parts.append(Text(f"  at the door, {named_as} is its role, without session and path"))
    if not said.deciding:
        parts.append(Text("  no rule permits it, and what no rule permits is denied"))
    elif not said.decision.allowed and said.deciding[0].permits:
        parts.append(Text("  a rule fails while it is evaluated, which denies what others allow"))
    for rule in said.deciding:
        parts += [Text(f"  by {rule.id} ({file.name}:{rule.line})"), Text(_indented(rule.text))]
    if said.decision.budgets:
        parts.append(Text(f"  within {', '.join(budget_text(budget) for budget in said.decision.budgets)}"))
    if said.near:
        parts += [Text("It would be allowed with"), *_near(said.near)]
    if said.remedy is not None:
        parts += [Text("The rule for exactly this would be"), Text(_indented(said.remedy))]
        if said.remedy_stopped:
            parts.append(Text(f"but it would still be denied, by {', '.join(said.remedy_stopped)}"))
            if said.remedy_near:
                parts += [Text("unless with"), *_near(said.remedy_near)]
    return Group(*parts)


def explained_json(file: PolicyFile, said: Explanation) -> dict[str, Any]:
    """The same for programs."""
    question, decision = said.question, said.decision
    return {
        "policy": str(file.path),
        "allowed": decision.allowed,
        "caller": question.caller.id,
        "action": question.action,
        "resource": written(question.resource),
        "count": question.count,
        "via": question.caller.via,
        "rules": [{"id": rule.id, "line": rule.line, "text": rule.text} for rule in said.deciding],
        "budgets": [budget_text(budget) for budget in decision.budgets],
        "near": [{"change": near.change, "rules": list(near.rules)} for near in said.near],
        "remedy": said.remedy,
        "remedyForbiddenBy": list(said.remedy_stopped),
        "remedyNear": [{"change": near.change, "rules": list(near.rules)} for near in said.remedy_near],
    }


def who(found: Sequence[Access]) -> RenderableType:
    """Who may, one line each; several doors that are alike share it."""
    if not found:
        return Text("nobody")
    doors: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        budgets = ", ".join(budget_text(budget) for budget in one.budgets)
        doors.setdefault((one.who, one.conditions, ", ".join(one.rules), budgets), []).append(one.via)
    rows = [
        (name, ", ".join(dict.fromkeys(via)), conditions or "-", rules, budgets or "-")
        for (name, conditions, rules, budgets), via in doors.items()
    ]
    return _table(("caller", "via", "conditions", "rules", "budget"), rows)


def replayed(result: Replay) -> RenderableType:
    """Who loses and gains, and what was replayed at all."""
    summary = f"{result.replayed} records replayed: "
    summary += _summary(result.differences) if result.differences else "nobody gains or loses access"
    skipped = [Text(f"{number} not replayable: {why}") for why, number in sorted(result.skipped.items())]
    headings = ("", "caller", "action", "resource", "count", "records", "last", "rules then", "rules now")
    rows = [
        (
            one.change,
            one.caller,
            one.action,
            one.resource,
            spans(ranges(one.counts, range(min(one.counts), max(one.counts) + 1))),
            str(one.records),
            one.last,
            ", ".join(sorted(one.then)) or "none",
            ", ".join(sorted(one.now)) or "none",
        )
        for one in result.differences
    ]
    return Group(*([_table(headings, rows)] if rows else []), Text(summary), *skipped)


def who_named_account(book: RuleBook, account: str) -> str | None:
    """What is to be said about the account that aliases were taken to have, None if it does not matter."""
    if any(rule.names("Account") for rule in book.rules):
        return f"rules mean whole accounts; aliases are taken to be of account {account}: --account names another"
    return None


def _summary(differences: Sequence[Difference]) -> str:
    numbers = {change: sum(one.records for one in differences if one.change == change) for change in ("loses", "gains")}
    return f"{numbers['loses']} lose access, {numbers['gains']} gain it"


def _near(found: Iterable[Any]) -> list[Text]:
    return [Text(f"  {near.change}: {', '.join(near.rules)}") for near in found]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        # What stands in a file or a record is text, not markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
