"""Asking a policy with every request that could make a difference: found by Cedar, never guessed from the rules' text."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from imburse_auth.credential import CredentialId
from vending.access.caller import Caller, canonical_id
from vending.access.policy import OPERATE, Decision, Policy, System
from vending.access.rules import ACTIONS, Rule
from vending.request import MAX_COUNT

# Nobody's: whoever may what these may is anybody. The name is one that AWS would take and no rule has.
STRANGE_ACCOUNT = "000000000000"
STRANGE_NAME = "any-other"
STRANGE_ENDPOINT = "vpce-00000000000000000"
STRANGE_ADDRESS = "203.0.113.7"  # of a block that is kept for documentation
# One more of each kind that a rule can ask for.
_ADDRESS_KINDS = frozenset({"isIpv4", "isIpv6", "isLoopback", "isMulticast"})
_OF_EACH_KIND = ("2001:db8::7", "127.0.0.1", "::1", "224.0.0.1", "ff02::1")

DOORS = ("api", "invoke", "proof")

# What a request with one value on each side of each constant in the rules surely decides (Cedar's JSON form).
_UNDERSTOOD = frozenset(
    {"Value", "Var", ".", "has", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "!", "in", "is", "Set", "contains"}
    | {"isInRange", "ip", "if-then-else"}
)
_ARITHMETIC = frozenset({"+", "-", "*", "neg"})


@dataclass(frozen=True)
class Question:
    """One request as the policy sees it."""

    caller: Caller
    action: str
    resource: CredentialId | System
    count: int = 1

    def ask(self, policy: Policy) -> Decision:
        """What the policy says."""
        return policy.decide(self.caller, self.action, self.resource, self.count)


@dataclass(frozen=True)
class Values:
    """What is worth asking with: one value on each side of each constant in some rules, and one that no rule has.

    `sure` says that nothing else could be decided otherwise: what holds for none of them holds never.
    """

    counts: tuple[int, ...]
    addresses: tuple[str | None, ...]
    networks: tuple[str, ...]
    endpoints: tuple[str | None, ...]
    accounts: tuple[str, ...]
    callers: tuple[str, ...]
    credentials: tuple[CredentialId, ...]
    sure: bool

    @classmethod
    def of(cls, rules: Collection[Rule]) -> Values:
        """Read them off the rules."""
        nodes = [node for rule in rules for condition in rule.body["conditions"] for node in _nodes(condition["body"])]
        operations = {name for node in nodes for name in node}
        numbers = {value for node in nodes if type(value := node.get("Value")) is int}
        texts = {value for node in nodes if isinstance(value := node.get("Value"), str)}
        networks = {str(node["ip"][0].get("Value")) for node in nodes if "ip" in node}
        counts = {1, MAX_COUNT, *(near for number in numbers for near in (number - 1, number, number + 1))}
        if operations & _ARITHMETIC:
            counts = set(range(1, MAX_COUNT + 1))
        addresses = _around(networks) | set(_OF_EACH_KIND if operations & _ADDRESS_KINDS else ())
        # No endpoint's id begins otherwise. A pattern is met without its wildcards, and with something in their place.
        endpoints = {text for text in texts if text.startswith("vpce-")} - {STRANGE_ENDPOINT}
        for pattern in (node["like"]["pattern"] for node in nodes if "like" in node):
            endpoints |= {_filled(pattern, with_what) for with_what in ("", "x")}
        callers = {name for rule in rules for name in rule.names("Caller") if _is_caller(name)}
        accounts = {name for rule in rules for name in rule.names("Account")} | {account_of(name) for name in callers}
        return cls(
            counts=tuple(sorted(count for count in counts if 1 <= count <= MAX_COUNT)),
            addresses=(STRANGE_ADDRESS, *sorted(addresses - {STRANGE_ADDRESS}), None),
            networks=tuple(sorted(networks)),
            endpoints=(None, STRANGE_ENDPOINT, *sorted(endpoints)),
            accounts=tuple(sorted(account for account in accounts if account)),
            callers=tuple(sorted(callers)),
            credentials=_credentials(rules),
            sure=operations <= _UNDERSTOOD,
        )

    def visits(self, caller: Caller) -> Iterator[Caller]:
        """The same caller through each door that is open to it, with each address and endpoint that the door tells of."""
        if caller.id.startswith("alias/"):
            yield replace(caller, via="invoke", source_ip=None, vpce=None)
            return
        for address in self.addresses:
            for endpoint in self.endpoints:
                yield replace(caller, via="api", source_ip=address, vpce=endpoint)
        yield through(caller, "proof")

    def counts_of(self, action: str) -> tuple[int, ...]:
        """How many may be asked for: what is no vend is always one."""
        return self.counts if action == "vend" else (1,)

    def resources_of(self, action: str) -> tuple[CredentialId | System, ...]:
        """Which resources an action can be about."""
        return (*self.credentials, System()) if action == OPERATE else self.credentials

    def strangers(self, own_account: str) -> Iterator[Caller]:
        """Callers that no rule names: of an account that no rule names, of each other account, and an alias."""
        for account in dict.fromkeys((STRANGE_ACCOUNT, *self.accounts)):
            yield Caller(f"arn:aws:iam::{account}:role/{STRANGE_NAME}", account, "api")
        yield Caller(f"alias/{STRANGE_NAME}", own_account, "invoke")

    def questions(self) -> Iterator[Question]:
        """Everything that is worth asking, whichever account the machine is in."""
        accounts = dict.fromkeys((STRANGE_ACCOUNT, *self.accounts))
        for someone in dict.fromkeys(
            someone
            for account in accounts
            for someone in (*self.strangers(account), *(caller(name, account) for name in self.callers))
        ):
            for action in ACTIONS:
                for resource in self.resources_of(action):
                    for visit in self.visits(someone):
                        for count in self.counts_of(action):
                            yield Question(visit, action, resource, count)


def caller(name: str, own_account: str) -> Caller:
    """A caller by the ARN of its role or session, or its `alias/<name>`, which belongs to the machine's own account.

    Raises ValueError if no caller can have that name.
    """
    known_as = canonical_id(name)
    return Caller(known_as, account_of(known_as) or own_account, "invoke" if known_as.startswith("alias/") else "api")


def through(someone: Caller, via: str, source_ip: str | None = None, vpce: str | None = None) -> Caller:
    """The caller through one of DOORS."""
    door: Any = via  # the doors are text in the policy
    return replace(someone, via=door, source_ip=source_ip, vpce=vpce)


def account_of(caller_id: str) -> str | None:
    """The account in an ARN; None for an alias."""
    return caller_id.split(":")[4] if caller_id.startswith("arn:") else None


def own_account(rules: Iterable[Rule]) -> str:
    """The machine's account, as far as rules tell: the only one they name; else one that no rule means."""
    accounts = Values.of(list(rules)).accounts
    return accounts[0] if len(accounts) == 1 else STRANGE_ACCOUNT


def ranges(allowed: Collection[int], asked: Collection[int]) -> list[tuple[int, int]]:
    """Counts that are allowed, of those asked with, as first and last of each run without a refusal between."""
    found: list[tuple[int, int]] = []
    run = False
    for count in sorted(asked):
        if count in allowed:
            found = [*found[:-1], (found[-1][0], count)] if run else [*found, (count, count)]
        run = count in allowed
    return found


def written(uid: CredentialId | System) -> str:
    """A resource as Cedar writes it."""
    return f'System::"{uid.name}"' if isinstance(uid, System) else f'Credential::"{uid}"'


def _is_caller(name: str) -> bool:
    try:
        return canonical_id(name) == name
    except ValueError:
        return False


def _credentials(rules: Collection[Rule]) -> tuple[CredentialId, ...]:
    """Those the rules name, and one more in each environment, theirs and a strange one."""
    named = {text for rule in rules for text in rule.names("Credential")}
    environments = {name for rule in rules for name in rule.names("Environment")}
    environments |= {text.partition("/")[0] for text in named}
    found: dict[CredentialId, None] = {}
    for text in [*sorted(named), *(f"{name}/{STRANGE_NAME}" for name in [STRANGE_NAME, *sorted(environments)])]:
        try:
            found[CredentialId.parse(text)] = None
        except ValueError:
            continue
    return tuple(found)


def _around(networks: Iterable[str]) -> set[str]:
    """First and last address of each network, and the one before and after."""
    found = set()
    for text in networks:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
        first, last = int(network.network_address), int(network.broadcast_address)
        kind = type(network.network_address)
        for number in (first - 1, first, last, last + 1):
            if 0 <= number < 2**network.max_prefixlen:
                found.add(str(kind(number)))
    return found


def _filled(pattern: list[Any], with_what: str) -> str:
    return "".join(with_what if part == "Wildcard" else part["Literal"] for part in pattern)


def _nodes(expression: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An expression and all within it: objects with one member, by the operation's name."""
    yield expression
    ((operation, operands),) = expression.items()
    if operation not in {"Value", "Var"}:
        for operand in operands.values() if isinstance(operands, Mapping) else operands:
            if isinstance(operand, Mapping):
                yield from _nodes(operand)
