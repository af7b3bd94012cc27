"""Asking Cedar with a part of the rules: it says what it says of all of them, and what is kept stays small."""

import itertools
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any
from unittest import mock

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imburse_auth import CredentialId
from imburse_vending.policy_ask import Question, Values
from tests import policies
from tests.machine import ACCOUNT, POLICY_DIR
from tests.policies import OTHER_ACCOUNT, QUESTIONS, ROLE_A, SCHEMA
from vending.access import slices
from vending.access.caller import Caller
from vending.access.limit import Budget
from vending.access.policy import Policy, System
from vending.access.rules import RuleBook
from vending.access.slices import Slices

A = Caller(ROLE_A, ACCOUNT, "api")
NOBODY = Caller(f"arn:aws:iam::{ACCOUNT}:role/nobody", ACCOUNT, "api")
ON_A = CredentialId("sandbox", "a")
OVERFLOW = f"when {{ context.count + {policies.BIG} > 0 }}"

# No caller has these names, but they are as near to one as a name can be.
CYRILLIC, FULL_WIDTH, COMPOSED, DECOMPOSED = "alias/\u0445", "alias/\uff58", "alias/\u00e9", "alias/e\u0301"
ODD = (
    *(CYRILLIC, FULL_WIDTH, COMPOSED, DECOMPOSED, "alias/X", "alias/x ", "alias/x\n", "alias/x\0", 'alias/x"', "alias/\\x"),
    *(ROLE_A.upper(), f"{ROLE_A}\u200b", "\N{GRINNING FACE}", ""),
)  # fmt: skip
PRINCIPALS = [
    *(f"principal == Caller::{text}" for text in ('"\\u{61}lias/\\u{78}"', '"alias/\\x78"', '"alias/\\u{445}"')),
    *(f'principal == Caller::"{name}"' for name in (CYRILLIC, FULL_WIDTH, COMPOSED, DECOMPOSED, "alias/X", "")),
    *(f'principal == Caller::"alias/{text}"' for text in ("x\\n", "x\\0", 'x\\"', "\\\\x", "x ")),
    f'principal in Caller::"{ROLE_A}"',
    f'principal is Caller in Caller::"{ROLE_A}"',
    *(f'principal is Caller in Account::"{account}"' for account in (ACCOUNT, OTHER_ACCOUNT)),
    *("principal == ?principal", "principal in ?principal", "principal is Caller in ?principal"),
]
RESOURCES = [
    *('resource == Credential::"s\\u{61}ndbox/\\x61"', 'resource == Credential::"sandbox/\u0430"'),
    *('resource in Credential::"sandbox/a"', 'resource is Credential in Credential::"sandbox/a"'),
    *('resource is Credential in Environment::"sandbox"', 'resource in Environment::"s\\u{61}ndbox"'),
    *("resource is System", 'resource in System::"vending"', 'resource is System in System::"vending"'),
    *("resource == ?resource", "resource in ?resource", "resource is Credential in ?resource"),
]
ASKED = (
    *QUESTIONS,
    *(
        Question(Caller(name, account, "api", vpce=endpoint), action, resource, count)
        for name, account, endpoint in itertools.product(ODD, (ACCOUNT, OTHER_ACCOUNT, ""), (None, policies.ENDPOINT))
        for action, resource in (("vend", ON_A), ("inspect", CredentialId("production", "a")), ("operate", System()))
        for count in ((1, 4) if action == "vend" else (1,))
    ),
)


@contextmanager
def held_against_the_whole(text: str) -> Iterator[None]:
    """Whatever is asked meanwhile is asked of the whole policy too, and both answers must be alike to the last error."""
    whole, ask = cedarpy.PolicySet.from_str(text), cedarpy.is_authorized

    def both(request: dict[str, Any], part: cedarpy.PolicySet, entities: list[dict[str, Any]]) -> cedarpy.AuthzResult:
        answers = [ask(request, rules, entities) for rules in (part, whole)]
        assert told(answers[0]) == told(answers[1]), request
        return answers[0]

    with mock.patch.object(cedarpy, "is_authorized", both):
        yield


def told(answer: cedarpy.AuthzResult) -> tuple[Any, ...]:
    said = answer.diagnostics
    return answer.decision, sorted(said.reasons), sorted(said.errors), said.id_annotations_by_reason


@contextmanager
def always_made(room: int = 4) -> Iterator[None]:
    """However few rules a policy has, its slices are made."""
    with mock.patch.multiple(slices, ASKED_FOR_ONE_MADE=0, OF_ONE_KEPT=0, KEPT_FOR_ONE=room):
        yield


def of(name: str, *accounts: str) -> list[dict[str, str]]:
    """A caller, and the accounts it is in."""
    return [{"type": "Caller", "id": name}, *({"type": "Account", "id": account} for account in accounts)]


def ids(rules: cedarpy.PolicySet) -> set[str]:
    return set(rules.to_pst().static_policies)


def slices_of(text: str) -> Slices:
    return Policy(text, SCHEMA)._slices


def filled(text: str, most: int = 100) -> str:
    """After the rule or rules, so many others that are about nobody who is asked for."""
    return text + "".join(
        f'permit (principal == Caller::"alias/f{number}", action, resource == Credential::"sandbox/f{number}");'
        for number in range(most)
    )


def owned(*sizes: int) -> str:
    """Rules of which alias/c0, alias/c1 and so on have so many each."""
    return "".join(
        f'permit (principal == Caller::"alias/c{caller}", action, resource == Credential::"sandbox/t{number}");'
        for caller, size in enumerate(sizes)
        for number in range(size)
    )


@contextmanager
def made() -> Iterator[list[int]]:
    """How many rules each part has that is made meanwhile."""
    sizes: list[int] = []
    make = Slices._part

    def noted(parts: Slices, rules: Sequence[str]) -> cedarpy.PolicySet:
        sizes.append(len(rules))
        return make(parts, rules)

    with mock.patch.object(Slices, "_part", noted):
        yield sizes


# What Cedar says


@settings(max_examples=60)
@given(
    rules=policies.texts(most=20, of=policies.rules(principals=PRINCIPALS, resources=RESOURCES)),
    renamed=st.lists(st.sampled_from(["", '@id("same") ', '@id("policy0") ']), min_size=20, max_size=20),
    room=st.sampled_from([0, 1, 4]),
    offset=st.integers(0, 60),
)
def test_what_cedar_says_of_a_part_is_what_it_says_of_the_whole(
    rules: tuple[str, ...], renamed: list[str], room: int, offset: int
) -> None:
    # Ids that several rules have, or that look like Cedar's own; a budget needs one of its own.
    text = "\n".join(
        rule if "@budget" in rule else re.sub(r'^@id\("r[0-9]+"\) ', name, rule)
        for rule, name in zip(rules, renamed, strict=False)
    )
    with always_made(room), held_against_the_whole(text):
        policy = Policy(text, SCHEMA)
        for question in ASKED[offset::61] * 2:
            question.ask(policy)


@pytest.mark.parametrize("file", sorted(POLICY_DIR.glob("*.cedar")), ids=lambda file: file.stem)
def test_so_it_does_for_each_stages_file_whatever_could_make_a_difference_to_it(file: Any) -> None:
    text = file.read_text()
    with always_made(), held_against_the_whole(text):
        book = RuleBook(text, SCHEMA)
        questions = list(Values.of(book.rules).questions())
        assert len(questions) > 50
        for question in questions:
            question.ask(book.policy)
    assert book.policy._slices._kept


def test_a_decision_by_a_part_of_a_thousand_rules_names_its_rules_and_budgets_as_ever() -> None:
    own = [f'principal == Caller::"{ROLE_A}"', "principal", f'principal in Account::"{ACCOUNT}"']
    text = filled("", 1000) + "\n".join(
        f'@id("own-{number}") @budget("{number + 1}/minute") permit ({head}, action, resource);'
        for number, head in enumerate(own)
    )
    policy = Policy(text, SCHEMA)
    with held_against_the_whole(text):
        decision = policy.decide(A, "vend", ON_A)
        assert decision.policy_ids == ("own-0", "own-1", "own-2")
        assert set(decision.budgets) == {Budget(f"own-{number}", number + 1, 60) for number in range(3)}
        assert policy.decide(NOBODY, "vend", ON_A).policy_ids == ("own-1", "own-2")
        last = CredentialId("sandbox", "f999")
        ninth = policy.decide(Caller("alias/f999", OTHER_ACCOUNT, "invoke"), "vend", last)
        assert ninth.policy_ids == ("own-1", "policy999")
        assert ninth.budgets == ()


def test_a_rule_about_somebody_else_cannot_fail_since_cedar_looks_at_its_head_first() -> None:
    """What leaving it out stands on: Cedar's own habit, tried on the whole of the rules."""
    for head in (
        'principal == Caller::"alias/x", action, resource',
        'principal, action, resource == Credential::"sandbox/b"',
    ):
        text = f"permit (principal, action, resource); forbid ({head}) {OVERFLOW};"
        policy = Policy(text, SCHEMA)  # too small to be taken apart
        assert policy.decide(A, "vend", ON_A).allowed
        assert not policy.decide(Caller("alias/x", ACCOUNT, "invoke"), "vend", CredentialId("sandbox", "b")).allowed


@pytest.mark.parametrize(
    "head",
    [
        *(f'principal == Caller::"{ROLE_A}", action, resource', f'principal in Account::"{ACCOUNT}", action, resource'),
        *("principal, action, resource", 'principal, action, resource in Environment::"sandbox"'),
        'principal is Caller, action, resource is Credential in Environment::"sandbox"',
        f'principal is Caller in Account::"{ACCOUNT}", action, resource == Credential::"sandbox/a"',
    ],
)
def test_a_rule_that_fails_denies_whomever_its_head_means(head: str) -> None:
    policy = Policy(filled(f"permit (principal, action, resource); forbid ({head}) {OVERFLOW};"), SCHEMA)
    assert len(policy._slices.bearing_on(of(ROLE_A))) < 10
    assert not policy.decide(A, "vend", ON_A).allowed


# Which rules are asked


@pytest.mark.parametrize(
    ("head", "bears"),
    [
        ("principal, action, resource", True),
        ("principal is Caller, action, resource is Credential", True),
        ("principal is Caller, action, resource is System", True),  # by its kind alone none is left out
        (f'principal == Caller::"{ROLE_A}", action, resource', True),
        (f'principal in Caller::"{ROLE_A}", action, resource', True),
        (f'principal is Caller in Account::"{ACCOUNT}", action, resource', True),
        (f'principal in Account::"{ACCOUNT}", action == Action::"inspect", resource', True),
        ('principal == Caller::"arn:aws:iam::123456789012:role/\\u{61}", action, resource', True),
        ('principal, action, resource == Credential::"s\\u{61}ndbox/a"', True),
        ('principal, action, resource is Credential in Environment::"sandbox"', True),
        (f'principal == Caller::"{ROLE_A}", action, resource == Credential::"sandbox/a"', True),
        # What it is about leaves none out.
        ('principal, action, resource == Credential::"sandbox/b"', True),
        (f'principal == Caller::"{ROLE_A}", action, resource in Environment::"production"', True),
        ('principal, action == Action::"operate", resource == System::"vending"', True),
        (f'principal in Account::"{OTHER_ACCOUNT}", action, resource', False),
        ('principal == Caller::"alias/x", action, resource', False),
        ('principal == Caller::"arn:aws:iam::123456789012:role/\u0430", action, resource', False),
        (f'principal == Caller::"{ROLE_A.upper()}", action, resource', False),
        ('principal is Caller in Account::"12", action, resource', False),
        ('principal == Caller::"alias/x", action, resource == Credential::"sandbox/a"', False),
    ],
)
def test_a_rule_is_left_out_only_if_its_head_names_somebody_else(head: str, bears: bool) -> None:
    parts = slices_of(filled(f"permit ({head});"))
    assert ids(parts.bearing_on(of(ROLE_A, ACCOUNT))) == ({"policy0"} if bears else set())


def test_a_refusal_does_not_tell_whether_a_rule_names_the_credential() -> None:
    """Whatever is asked for, Cedar is asked with the very same rules: time has nothing to tell but what Cedar itself needs."""
    named = [
        f'permit (principal{who}, action == Action::"vend", resource == Credential::"sandbox/named") when {{ {when} }};'
        for who in ("", f' in Account::"{ACCOUNT}"', f' == Caller::"{ROLE_A}"')
        for when in ('context.via == "proof"', "context.count > 400")
    ]
    policy = Policy(
        filled("".join(named) + 'forbid (principal, action, resource == Credential::"sandbox/no");'), SCHEMA
    )
    asked: list[cedarpy.PolicySet] = []
    ask = cedarpy.is_authorized

    def watched(request: Any, rules: cedarpy.PolicySet, entities: Any) -> cedarpy.AuthzResult:
        asked.append(rules)
        return ask(request, rules, entities)

    resources: list[CredentialId | System] = [
        *(CredentialId("sandbox", name) for name in ("named", "no", "nobodys")),
        CredentialId("x", "y"),
        System(),
    ]
    sizes = []
    for caller in (A, NOBODY, Caller("alias/stranger", OTHER_ACCOUNT, "invoke")):
        with mock.patch.object(cedarpy, "is_authorized", watched), made() as just_made:
            for resource in resources * 2:
                assert not policy.decide(caller, "operate" if resource == System() else "vend", resource).allowed
        assert len(set(map(id, asked))) == 1
        assert len(just_made) == 1
        sizes.append(len(asked[0]))
        asked.clear()
    assert sizes == [7, 5, 3]


@pytest.mark.parametrize("form", ["principal ==", "principal in", "principal is Caller in"])
@pytest.mark.parametrize("escaped", [False, True], ids=["as it is", "escaped"])
def test_names_are_told_apart_to_the_letter_however_the_rule_spells_them(form: str, escaped: bool) -> None:
    def spelled(name: str) -> str:
        return "".join(f"\\u{{{ord(letter):x}}}" if escaped or letter in '\\"\n\0' else letter for letter in name)

    text = filled("\n".join(f'permit ({form} Caller::"{spelled(name)}", action, resource);' for name in ODD))
    policy = Policy(text, SCHEMA)
    with held_against_the_whole(text):
        for number, name in enumerate(ODD):
            assert policy.decide(Caller(name, ACCOUNT, "api"), "vend", ON_A).policy_ids == (f"policy{number}",)
            assert len(policy._slices.bearing_on(of(name))) == 1


def test_a_form_of_head_that_is_not_known_fits_everybody() -> None:
    text = 'permit (principal == Caller::"alias/x", action, resource);'
    body = {"effect": "permit", "action": {"op": "All"}, "conditions": [], "resource": {"op": "All"}}
    others = {
        f"policy{number}": body | {"principal": {"op": "==", "entity": {"type": "Caller", "id": f"f{number}"}}}
        for number in range(1, 100)
    }
    for unknown in (
        {"op": "near", "entity": {"type": "Caller", "id": "alias/x"}},
        {"op": "near", "in": {"entity": {"type": "Caller", "id": "alias/x"}}},
        {"op": "==", "entity": {"id": "alias/x"}},
        {},
    ):
        parts = Slices(text, {"policy0": body | {"principal": unknown}, **others})
        # Cedar does not know it either, and so reads none of it: that leaves the whole.
        assert len(parts.bearing_on(of("alias/y"))) == 1


def test_a_template_is_in_no_part_and_decides_nothing() -> None:
    text = filled(
        "permit (principal == ?principal, action, resource); permit (principal, action, resource in ?resource);"
    )
    with held_against_the_whole(text):
        assert not Policy(text, SCHEMA).decide(A, "vend", ON_A).allowed


@pytest.mark.parametrize("alternatives", [10, 60, 400])
def test_a_rule_that_cedar_does_not_read_from_its_own_json_is_asked_all_the_same(alternatives: int) -> None:
    chain = " || ".join(f"context.count == {number}" for number in range(1, alternatives + 1))
    text = filled(f'@id("long") permit (principal == Caller::"{ROLE_A}", action, resource) when {{ {chain} }};')
    policy = Policy(text, SCHEMA)
    for _ in range(2):
        assert policy.decide(A, "vend", ON_A, alternatives).policy_ids == ("long",)
        assert not policy.decide(A, "vend", ON_A, alternatives + 1).allowed
        assert policy.decide(Caller("alias/f9", ACCOUNT, "invoke"), "vend", CredentialId("sandbox", "f9")).allowed


# What is kept


def test_two_threads_that_ask_for_the_same_part_at_once_make_it_once() -> None:
    parts, both = slices_of(filled("")), Barrier(2, timeout=30)
    lock = parts._lock

    class Met:
        """The lock, at which both threads are before one of them gets it."""

        def __enter__(self) -> None:
            both.wait()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    parts._lock = Met()  # type: ignore[assignment]
    with made() as sizes, ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: parts.bearing_on(of("alias/f1")), "ab")
    assert one is other
    assert ids(one) == {"policy1"}
    assert sizes == [1]
    assert parts._room == slices.KEPT_FOR_ONE * 100 - 1
    assert both.n_waiting == 0
    assert not lock.locked()


def test_a_part_is_made_once() -> None:
    parts = slices_of(filled(""))
    with made() as sizes:
        assert ids(parts.bearing_on(of("alias/f1"))) == {"policy1"}
        assert parts.bearing_on(of("alias/f1")) is parts.bearing_on(of("alias/f1"))
    assert sizes == [1]


def test_all_whom_no_rule_names_share_what_is_kept() -> None:
    parts = slices_of(filled("permit (principal, action, resource);"))
    with made() as sizes:
        asked = [parts.bearing_on(of(f"alias/s{number}", f"{number}")) for number in range(500)]
    assert len(set(map(id, asked))) == 1
    assert sizes == [1]
    assert len(parts._kept) == 1


def test_so_do_all_whom_no_rule_names_but_by_their_account() -> None:
    parts = slices_of(filled(f'permit (principal in Account::"{ACCOUNT}", action, resource);'))
    asked = [parts.bearing_on(of(f"alias/s{number}", ACCOUNT)) for number in range(500)]
    assert len(set(map(id, asked))) == len(parts._kept) == 1
    assert ids(asked[0]) == {"policy0"}


@pytest.mark.parametrize("own", [1, 7, 10])
def test_what_is_kept_is_bounded_by_the_policy_and_whoever_comes_later_is_decided_alike(own: int) -> None:
    """Each has one rule and shares some, more than all of these parts may hold together; mostly the last is too much."""
    others = 240 - own
    text = 'permit (principal, action == Action::"inspect", resource);' * (own - 1) + owned(*[1] * (others + 1))
    policy = Policy(text, SCHEMA)
    parts = policy._slices
    with held_against_the_whole(text):
        for number in [*range(others), *range(others)]:
            decision = policy.decide(
                Caller(f"alias/c{number}", ACCOUNT, "invoke"), "vend", CredentialId("sandbox", "t0")
            )
            assert decision.policy_ids == (f"policy{own - 1 + number}",)
    held = sum(map(len, parts._kept.values()))
    assert held == min(others, 240 * slices.KEPT_FOR_ONE // own) * own
    assert parts._room == 240 * slices.KEPT_FOR_ONE - held


def test_a_part_for_which_there_is_no_room_is_made_again_only_if_that_is_no_dearer_than_asking_all() -> None:
    small, large = 5, 6
    with mock.patch.object(slices, "KEPT_FOR_ONE", 0), made() as sizes:
        parts = slices_of(owned(small, large, 69))
        for _ in range(2):
            assert len(parts.bearing_on(of("alias/c0"))) == small
            assert parts.bearing_on(of("alias/c1")) is parts._whole
    assert small * slices.ASKED_FOR_ONE_MADE == len(parts._whole) == 80
    assert sizes == [small, small]
    assert not parts._kept


def test_a_part_may_take_the_last_of_the_room() -> None:
    with mock.patch.object(slices, "KEPT_FOR_ONE", 1):
        parts = slices_of(owned(8, 8, 1))
    for caller in ("alias/c0", "alias/c1"):
        assert len(parts.bearing_on(of(caller))) == 8
    assert parts._room == 1
    assert len(parts.bearing_on(of("alias/c2"))) == 1
    assert (parts._room, len(parts._kept)) == (0, 3)


def test_a_policy_of_few_rules_is_asked_whole() -> None:
    few, enough = (slices_of(filled("", slices.ASKED_FOR_ONE_MADE - less)) for less in (1, 0))
    assert few.bearing_on(of("alias/stranger")) is few._whole
    assert len(enough.bearing_on(of("alias/stranger"))) == 0


def test_a_part_of_half_the_rules_is_made_and_kept_and_one_of_more_costs_nothing_but_to_count_it() -> None:
    parts = slices_of(owned(20, 20))
    assert parts.bearing_on(of("alias/c0")) is parts.bearing_on(of("alias/c0"))
    assert len(parts.bearing_on(of("alias/c0"))) == 20
    parts = slices_of(owned(20, 19))
    with made() as sizes:
        for _ in range(3):
            assert parts.bearing_on(of("alias/c0")) is parts._whole
    assert sizes == []
    assert not parts._kept
    assert parts._room == slices.KEPT_FOR_ONE * 39


def test_a_part_that_cedar_cannot_read_is_not_tried_again() -> None:
    chain = " || ".join(f"context.count == {number}" for number in range(1, 401))
    parts = slices_of(filled(f'permit (principal == Caller::"{ROLE_A}", action, resource) when {{ {chain} }};'))
    with made() as sizes:
        for _ in range(3):
            assert parts.bearing_on(of(ROLE_A)) is parts._whole
    assert sizes == [1]


def test_a_part_that_python_cannot_write_is_asked_whole() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200_000):
        deep = {"!": {"arg": deep}}
    rules = {
        f"policy{number}": {
            "principal": {"op": "==", "entity": {"type": "Caller", "id": f"alias/f{number}"}},
            "conditions": [deep] if number == 0 else [],
        }
        for number in range(100)
    }
    parts = Slices(filled(""), rules)
    assert parts.bearing_on(of("alias/f0")) is parts._whole


def test_many_threads_that_ask_at_once_are_all_answered_right_and_keep_no_more_than_one_would() -> None:
    policy = Policy(filled("", 200), SCHEMA)

    def ask(number: int) -> tuple[str, ...]:
        someone = Caller(f"alias/f{number % 200}", ACCOUNT, "invoke")
        return policy.decide(someone, "vend", CredentialId("sandbox", f"f{number % 200}")).policy_ids

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(1600))) == [(f"policy{number % 200}",) for number in range(1600)]
    kept = policy._slices._kept
    assert len(kept) == 200
    assert policy._slices._room == slices.KEPT_FOR_ONE * 200 - 200
