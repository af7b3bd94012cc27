"""What is wrong with a policy: what the functions would not start with, rules that can never matter, doors left open."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cedarpy

from imburse_vending.policy_ask import STRANGE_ACCOUNT, STRANGE_NAME, Question, Values, account_of
from imburse_vending.policy_dead import never_applies, redundant
from vending.access.caller import Caller
from vending.access.limit import budgets_of
from vending.access.policy import OPERATE, Policy
from vending.access.rules import ACTIONS, Rule, RuleBook, Statement, statements

Level = Literal["error", "warning"]

# Whoever may send a proof may invoke it without one too, and so does the probe, as the stranger who must be refused.
NOBODY = "alias/live"

_HINTS = {
    "optional attribute": "ask first, as in: context has vpce && context.vpce == ...; sourceIp may be missing too",
    "in context for": "a context has count, via, sourceIp and vpce, and nothing else",
    "unable to find an applicable action": 'vend and inspect are about a Credential, operate about one or System::"vending"; '
    "who asks is a Caller, alone or in an Account",
    "unrecognized entity type": "there are Caller, Account, Credential, Environment and System",
    "unrecognized action": "there are vend, inspect and operate",
    "unexpected end": "a rule ends with `;`",
    "invalid token": 'a text ends on its line, with `"`; a comment begins with `//`',
    "invalid policy effect": "a rule begins with permit or forbid, after its annotations",
    "invalid policy condition": "after the head come only when { ... } and unless { ... }",
    "variable in the scope": "a head is (principal, action, resource), in this order",
}


@dataclass(frozen=True)
class Finding:
    """Something found, on a line (from 1) of the file, and what to do about it."""

    level: Level
    line: int
    rule: str | None
    problem: str
    hint: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def findings(text: str, schema: str, environments: Collection[str] | None = None) -> list[Finding]:
    """All that is found, by line. `environments` are those that have a host, None if that is not known."""
    found = [*_syntax(text)] or [*_unsound(text, schema)]
    if not found:
        book = RuleBook(text, schema)
        found = [*_templates(book), *_ids(book), *_rules(book, schema, environments)]
    return sorted(found, key=lambda finding: (finding.line, finding.level, finding.problem))


def _syntax(text: str) -> Iterator[Finding]:
    for statement in statements(text):
        try:
            cedarpy.PolicySet.from_str(statement.text)
        except ValueError as exc:
            yield Finding("error", _broken_at(statement), None, str(exc), _hint(str(exc)))


def _broken_at(statement: Statement) -> int:
    """The line where Cedar gave up, which it does not tell: the first piece with which the text before is no beginning."""
    for piece in re.finditer(r'"(?:\\.|[^"\\\n])*"|[\w:]+|//[^\n]*|\s+|.', statement.text):
        if piece[0].isspace() or piece[0].startswith("//"):
            continue
        try:
            cedarpy.PolicySet.from_str(statement.text[: piece.end()])
        except ValueError as exc:
            if str(exc) != "unexpected end of input":
                return statement.line + statement.text.count("\n", 0, piece.start())
    return statement.line + statement.text.count("\n")


def _unsound(text: str, schema: str) -> Iterator[Finding]:
    """What the schema and the budgets refuse."""
    lines = {f"policy{number}": statement for number, statement in enumerate(statements(text))}
    rules = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    ids = {key: (body.get("annotations") or {}).get("id") or key for key, body in rules.items()}
    errors = cedarpy.validate_policies(text, schema).errors
    unknown_words = {error.policy_id for error in errors if "unrecognized" in error.error}
    seen = set()
    for error in errors:
        key = error.policy_id
        said = error.error.removeprefix(f"for policy `{key}`, ")
        # One fault in a rule about several actions comes once for each of them.
        problem = re.sub(r' (?:in context )?for Action::"\w+"', " in context", said)
        if (key, problem) in seen or (key in unknown_words and "applicable action" in problem):
            continue
        seen.add((key, problem))
        yield Finding("error", _line_of(lines.get(key), said), ids.get(key), problem, _hint(said))
    try:
        budgets_of(rules)
    except ValueError as exc:
        rule, _, problem = str(exc).partition(": ")
        key = next((key for key, name in ids.items() if name == rule), "")
        yield Finding(
            "error", _line_of(lines.get(key), "`@budget`"), rule, problem, 'for example @budget("600/minute")'
        )


def _line_of(statement: Statement | None, said: str) -> int:
    """The line of the first thing in back-quotes that stands in the rule, else the rule's first."""
    if statement is None:
        return 1
    for named in re.findall(r"`([^`]+)`", said):
        if named in statement.text:
            return statement.line + statement.text.count("\n", 0, statement.text.index(named))
    return statement.line


def _hint(said: str) -> str | None:
    return next((hint for part, hint in _HINTS.items() if part in said), None)


def _templates(book: RuleBook) -> Iterator[Finding]:
    for template in book.templates:
        yield Finding(
            "error", template.line, None, "a template (?principal, ?resource) decides nothing here", "name them"
        )


def _ids(book: RuleBook) -> Iterator[Finding]:
    count = Counter(rule.annotations.get("id") for rule in book.rules)
    for rule in book.rules:
        name = rule.annotations.get("id")
        if not name:
            problem = f"no @id: audit records would call it {rule.key}, and another rule so when one is put before it"
            yield Finding("warning", rule.line, rule.id, problem, 'put @id("...") before it')
        elif count[name] > 1:
            yield Finding(
                "error",
                rule.line,
                name,
                "this @id stands on several rules",
                "an audit record must tell which one decided",
            )


def _rules(book: RuleBook, schema: str, environments: Collection[str] | None) -> Iterator[Finding]:
    for number, rule in enumerate(book.rules):
        if why := never_applies(rule, schema):
            yield Finding(
                "error", rule.line, rule.id, f"never applies: {why}", None if rule.permits else "it forbids nothing"
            )
            continue
        if problem := redundant(rule, book.rules, number):
            yield Finding("warning", rule.line, rule.id, problem, "take it out, or say what it was meant to be")
            continue
        if rule.permits:
            yield from [*_wildcards(rule, schema)] or [*_for_nobody(rule, schema)]
        else:
            yield from _passed_by_proof(rule, schema)
        if environments is not None:
            for name in sorted(_environments(rule) - set(environments)):
                problem = f"environment {json.dumps(name)} has no host in ImburseHosts of template.yaml"
                yield Finding("warning", rule.line, rule.id, problem, "a misspelt name, or a host to add")


def _wildcards(rule: Rule, schema: str) -> Iterator[Finding]:
    if not (rule.caller.is_open or rule.any_action or rule.resource.is_open):
        return
    values, alone = Values.of([rule]), Policy(rule.text, schema)
    opened = [question for question in values.questions() if question.ask(alone).allowed]
    strangers = {question.caller.id for question in opened}
    is_anybody = any(
        name.endswith(f"/{STRANGE_NAME}") and account_of(name) not in values.accounts for name in strangers
    )
    what = []
    if is_anybody and rule.caller.is_open:
        what.append("to any caller")
    if rule.any_action:
        what.append(f"for any action (but {OPERATE}, which must be named)")
    if any(str(question.resource) == f"{STRANGE_NAME}/{STRANGE_NAME}" for question in opened):
        what.append("on any credential of any environment")
    if what:
        yield Finding("warning", rule.line, rule.id, f"open {', '.join(what)}", "name what is meant")
    elif rule.caller.is_open and not opened and not values.sure:
        problem = (
            "whether it is open to any caller cannot be seen: it names none, and its condition is not seen through"
        )
        yield Finding("warning", rule.line, rule.id, problem, "name who is meant")


def _for_nobody(rule: Rule, schema: str) -> Iterator[Finding]:
    if rule.caller.exactly not in (None, NOBODY):
        return
    values, alone = Values.of([rule]), Policy(rule.text, schema)
    asked = (
        Question(Caller(NOBODY, account, "invoke"), action, resource, count)
        for account in (STRANGE_ACCOUNT, *values.accounts)
        for action in ACTIONS
        for resource in values.resources_of(action)
        for count in values.counts_of(action)
    )
    if any(question.ask(alone).allowed for question in asked):
        problem = (
            f"lets in {NOBODY}, which is nobody: all who may send a proof may invoke it without one, as the probe does"
        )
        hint = f'unless {{ principal == Caller::"{NOBODY}" }}, or an alias of its own for who is meant'
        yield Finding("warning", rule.line, rule.id, problem, hint)


def _passed_by_proof(rule: Rule, schema: str) -> Iterator[Finding]:
    """A forbid for roles at the API, which they get around at the other door: no address and no endpoint is known there."""
    alone = Policy(rule.text, schema)
    doors = {question.caller.via for question in Values.of([rule]).questions() if question.ask(alone).policy_ids}
    if "api" in doors and "proof" not in doors:
        problem = "forbids nothing that comes with a proof: a role that may invoke an alias gets around it"
        yield Finding(
            "warning", rule.line, rule.id, problem, 'write || context.via == "proof", or a forbid of its own for that'
        )


def _environments(rule: Rule) -> set[str]:
    return set(rule.names("Environment")) | {name.partition("/")[0] for name in rule.names("Credential")}
