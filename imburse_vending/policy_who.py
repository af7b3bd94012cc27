"""Who may have it: every caller that the rules name, and those they do not, for whom Cedar says yes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imburse_auth.credential import CredentialId
from imburse_vending.policy_ask import (
    STRANGE_ACCOUNT,
    STRANGE_ENDPOINT,
    STRANGE_NAME,
    Question,
    Values,
    caller,
    ranges,
)
from imburse_vending.policy_explain import spans
from vending.access.caller import Caller
from vending.access.limit import Budget
from vending.access.policy import System
from vending.access.rules import RuleBook
from vending.request import MAX_COUNT


@dataclass(frozen=True)
class Access:
    """What one caller may: how many at once, if it is a vend, through one door, with which addresses and endpoints."""

    who: str
    via: str
    counts: tuple[tuple[int, int], ...]
    addresses: tuple[str, ...]
    endpoints: tuple[str, ...]
    rules: tuple[str, ...]
    budgets: tuple[Budget, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; an empty list of addresses or endpoints means that they do not matter."""
        return {
            "caller": self.who,
            "via": self.via,
            "counts": [list(span) for span in self.counts],
            "sourceIp": list(self.addresses),
            "vpce": list(self.endpoints),
            "rules": list(self.rules),
            "budgets": [budget_text(budget) for budget in self.budgets],
        }

    @property
    def conditions(self) -> str:
        """In words, for people."""
        counts = f"count {spans(self.counts)}" if self.counts not in {(), ((1, MAX_COUNT),)} else ""
        addresses = f"from {', '.join(self.addresses)}" if self.addresses else ""
        endpoints = f"endpoint {', '.join(self.endpoints)}" if self.endpoints else ""
        return "; ".join(filter(None, (counts, addresses, endpoints)))


def who_can(book: RuleBook, action: str, resource: CredentialId | System, own_account: str) -> Iterator[Access]:
    """Every access that the policy gives, strangers first: found by asking with each caller, door and count that matters."""
    values = Values.of(book.rules)
    for someone in values.strangers(own_account):
        yield from _of(book, someone, _stranger(someone), action, resource, values)
    for name in values.callers:
        yield from _of(book, caller(name, own_account), name, action, resource, values)


def budget_text(budget: Budget) -> str:
    """`60/minute`, or with the seconds of its window."""
    unit = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}[budget.window_seconds]
    return f"{budget.limit}/{unit}"


def _stranger(someone: Caller) -> str:
    if someone.id == f"alias/{STRANGE_NAME}":
        return "any alias"
    return "anybody" if someone.account == STRANGE_ACCOUNT else f"any caller of account {someone.account}"


def _of(
    book: RuleBook, someone: Caller, who: str, action: str, resource: CredentialId | System, values: Values
) -> Iterator[Access]:
    visits = list(values.visits(someone))
    counts = values.counts_of(action)
    places_of: dict[tuple[Any, ...], dict[str | None, list[str | None]]] = {}
    for visit in visits:
        by_rules: dict[tuple[tuple[str, ...], tuple[Budget, ...]], set[int]] = {}
        for count in counts:
            decision = Question(visit, action, resource, count).ask(book.policy)
            if decision.allowed:
                by_rules.setdefault((decision.policy_ids, decision.budgets), set()).add(count)
        for by, allowed in by_rules.items():
            # Only a vend has a count.
            key = (visit.via, tuple(ranges(allowed, counts)) if action == "vend" else (), *by)
            places_of.setdefault(key, {}).setdefault(visit.vpce, []).append(visit.source_ip)
    for (via, fitting, rules, budgets), places in places_of.items():
        possible = [visit for visit in visits if visit.via == via]
        # Only endpoints with the same addresses share a line: every pair on it is then allowed.
        for addresses in dict.fromkeys(tuple(found) for found in places.values()):
            endpoints = [endpoint for endpoint, found in places.items() if tuple(found) == addresses]
            yield Access(
                who,
                via,
                fitting,
                _places(set(addresses), {visit.source_ip for visit in possible}, values.networks),
                _endpoints(endpoints, {visit.vpce for visit in possible}),
                rules,
                budgets,
            )


def _places(allowed: set[str | None], possible: set[str | None], networks: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses in words, by the networks that rules name; empty if all are allowed."""
    if allowed == possible:
        return ()
    within = {name: {address for address in possible if address and _is_in(address, name)} for name in networks}
    said, left = [], set(allowed)
    for name in sorted(networks, key=lambda name: (ipaddress.ip_network(name, strict=False).prefixlen, name)):
        if within[name] and within[name] <= allowed and within[name] & left:
            said.append(name)
            left -= within[name]
    elsewhere = possible - {None} - set().union(*within.values())
    if elsewhere <= allowed:
        said, left = [*said, "elsewhere"], left - elsewhere
    return (*said, *sorted(address or "unknown" for address in left))


def _is_in(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)


def _endpoints(allowed: list[str | None], possible: set[str | None]) -> tuple[str, ...]:
    """The endpoints in words; empty if all are allowed, and the way past them."""
    if set(allowed) == possible:
        return ()
    named = {None: "none", STRANGE_ENDPOINT: "any other"}
    return tuple(named.get(endpoint) or str(endpoint) for endpoint in allowed)
