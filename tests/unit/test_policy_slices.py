"""Asking Cedar with a part of the rules: it says what it says of all of them, and what is kept stays small."""

import itertools
import json
import re
from collections.abc import Iterator
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
    with mock.patch.multiple(slices, ASKED_FOR_ONE_MADE=0, KEPT_FOR_ONE=room):
        yield


def uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


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


# What Cedar says


@settings(max_examples=60, deadline=None)
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
    assert len(policy._slices.bearing_on([uid("Caller", ROLE_A)], [])) < 10
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
        (f'principal in Account::"{OTHER_ACCOUNT}", action, resource', False),
        ('principal == Caller::"alias/x", action, resource', False),
        ('principal == Caller::"arn:aws:iam::123456789012:role/\u0430", action, resource', False),
        (f'principal == Caller::"{ROLE_A.upper()}", action, resource', False),
        ('principal is Caller in Account::"12", action, resource', False),
        ('principal, action, resource == Credential::"sandbox/b"', False),
        (f'principal == Caller::"{ROLE_A}", action, resource in Environment::"production"', False),
        ('principal == Caller::"alias/x", action, resource == Credential::"sandbox/a"', False),
        ('principal, action == Action::"operate", resource == System::"vending"', False),
    ],
)
def test_a_rule_is_left_out_only_if_its_head_names_somebody_or_something_else(head: str, bears: bool) -> None:
    parts = slices_of(filled(f"permit ({head});"))
    asked = parts.bearing_on(
        [uid("Caller", ROLE_A), uid("Account", ACCOUNT)],
        [uid("Credential", "sandbox/a"), uid("Environment", "sandbox")],
    )
    assert ids(asked) == ({"policy0"} if bears else set())


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
            assert len(policy._slices.bearing_on([uid("Caller", name)], [])) == 1


def test_a_form_of_head_that_is_not_known_fits_everybody() -> None:
    text = 'permit (principal == Caller::"alias/x", action, resource);'
    body = {"effect": "permit", "action": {"op": "All"}, "conditions": [], "resource": {"op": "All"}}
    others = {
        f"policy{number}": body | {"principal": {"op": "==", "entity": {"type": "Caller", "id": f"f{number}"}}}
        for number in range(1, 100)
    }
    for unknown in (
        {"op": "near", "entity": {"type": "Caller", "id": "alias/x"}},
        {"op": "==", "entity": {"id": "alias/x"}},
        {},
    ):
        parts = Slices(text, {"policy0": body | {"principal": unknown}, **others})
        # Cedar does not know it either, and so reads none of it: that leaves the whole.
        assert len(parts.bearing_on([uid("Caller", "alias/y")], [])) == 1


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


def test_two_threads_that_make_the_same_part_at_once_keep_it_once() -> None:
    parts = slices_of(filled(""))
    meet, dumps = Barrier(2, timeout=30), json.dumps

    def both_are_making(rules: object) -> str:
        meet.wait()
        return dumps(rules)

    with mock.patch.object(json, "dumps", both_are_making), ThreadPoolExecutor(2) as pool:
        made = list(
            pool.map(lambda _: parts.bearing_on([uid("Caller", "alias/f1")], [uid("Credential", "sandbox/f1")]), "ab")
        )
    assert [ids(part) for part in made] == [{"policy1"}] * 2
    assert parts._room == slices.KEPT_FOR_ONE * 100 - 1


def test_a_part_is_made_once() -> None:
    parts = slices_of(filled(""))
    asked = ([uid("Caller", "alias/f1")], [uid("Credential", "sandbox/f1")])
    assert ids(parts.bearing_on(*asked)) == {"policy1"}
    assert parts.bearing_on(*asked) is parts.bearing_on(*asked)


def test_all_whom_and_all_that_no_rule_names_share_what_is_kept() -> None:
    parts = slices_of(filled("permit (principal, action, resource);"))
    asked = [
        parts.bearing_on(
            [uid("Caller", f"alias/s{number}"), uid("Account", f"{number}")], [uid("Credential", f"sandbox/s{number}")]
        )
        for number in range(500)
    ]
    assert len(set(map(id, asked))) == 1
    assert len(parts._kept) == 1


def test_what_is_kept_is_bounded_by_the_policy_and_whoever_comes_later_is_decided_alike() -> None:
    count = 40
    text = "\n".join(
        f'permit (principal == Caller::"alias/c{number}", action == Action::"vend", resource);'
        f'permit (principal, action == Action::"inspect", resource == Credential::"sandbox/t{number}");'
        for number in range(count)
    )
    policy = Policy(text, SCHEMA)
    pairs = list(itertools.product(range(count), range(count)))
    with held_against_the_whole(text):
        for number, other in pairs:
            decision = policy.decide(
                Caller(f"alias/c{number}", ACCOUNT, "invoke"), "vend", CredentialId("sandbox", f"t{other}")
            )
            assert decision.policy_ids == (f"policy{2 * number}",)
    parts = policy._slices
    assert len(parts._kept) < len(pairs)
    assert sum(map(len, parts._kept.values())) <= slices.KEPT_FOR_ONE * 2 * count


def test_a_policy_of_few_rules_is_asked_whole() -> None:
    parts = slices_of(filled("", slices.ASKED_FOR_ONE_MADE - 1))
    assert len(parts.bearing_on([uid("Caller", "alias/stranger")], [])) == slices.ASKED_FOR_ONE_MADE - 1


def test_a_part_that_would_be_nearly_the_whole_is_not_made() -> None:
    parts = slices_of("permit (principal, action, resource);" * 20 + filled(""))
    asked = [parts.bearing_on([uid("Caller", f"alias/f{number}")], []) for number in range(10)]
    assert len(set(map(id, asked))) == 1
    assert len(asked[0]) == 120
    assert not parts._kept


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
