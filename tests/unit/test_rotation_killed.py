"""A rotation killed before and after each call that it makes, and run again: one key in use, none left over, vending goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.rotation_world import STEPS, Gate, Killed, World, token


def whole_life(world: World, ticket: str) -> None:
    """A rotation and, when the old key's grace is over, the sweep that deletes it."""
    world.rotate(ticket)
    world.pass_grace()
    world.sweep()


def aged() -> World:
    """A credential that was rotated before: AWSPREVIOUS is a key that Imburse does not know any more."""
    world = World()
    whole_life(world, token())
    world.gate = Gate()
    world.audit.clear()
    return world


def calls_of_a_whole_life() -> list[str]:
    world = aged()
    whole_life(world, token())
    return world.gate.calls


CALLS = calls_of_a_whole_life()
MATRIX = [
    pytest.param(number, after, id=f"{number}-{'after' if after else 'before'}-{name}")
    for number, name in enumerate(CALLS, 1)
    for after in (False, True)
]


def test_the_matrix_has_every_kind_of_call() -> None:
    assert {
        "aws.describe_secret",
        "aws.get_secret_value",
        "aws.put_secret_value",
        "aws.update_secret_version_stage",
        "aws.paginate",
        "imburse.POST hmac",
        "imburse.GET me",
        "imburse.GET keys",
        "imburse.POST keys",
        "imburse.DELETE keys",
        "table.lease",
        "table.hold",
        "table.get",
        "table.put",
        "table.query",
        "table.delete",
        "audit",
    } == set(CALLS)


def killed(world: World, number: int, *, after: bool, life: Callable[[], None]) -> None:
    """Run it until it is killed there."""
    # At every moment between two calls somebody vends, with the key that is current and with the one in their cache.
    world.gate = Gate(kill_at=number, after=after, moment=lambda: must_vend(world))
    with contextlib.suppress(Killed):
        life()
    assert world.gate.dead, "it was killed"
    must_vend(world)
    world.vend()
    world.gate = Gate(moment=lambda: must_vend(world))


def must_vend(world: World) -> None:
    """The cheap half of a vend: Imburse accepts the current key. (With the whole of it at every moment this would take minutes.)"""
    assert world.current() in world.accepted()


def check_the_end(world: World, old: str) -> None:
    assert world.accepted() == {world.current(), world.innocent}, "one key in use, no orphan, the namesake untouched"
    assert world.current() != old
    assert not [key for key in world.table.items if key[0] == "rotation" and not key[1].startswith("lease#")]
    members = world.aws.current("sandbox/tenant-a")
    assert (members["note"], members["name"], members["roles"]) == ("kept", "settlement", ["tenant-admin"])
    assert members["createdAt"].endswith("Z")
    made = [record["key"]["made"] for record in world.audit if "made" in record["key"]]
    deleted = [record["key"]["deleted"] for record in world.audit if "deleted" in record["key"]]
    assert world.current() in made, "every key that came into use has its record"
    assert old in deleted
    assert world.innocent not in deleted
    world.vend()


@pytest.mark.parametrize(("number", "after"), MATRIX)
def test_run_again_with_the_same_token(number: int, after: bool) -> None:
    world, ticket = aged(), token()
    old = world.current()
    killed(world, number, after=after, life=lambda: whole_life(world, ticket))
    world.clock.now += 30
    world.rotate(ticket)
    world.pass_grace()
    world.sweep()
    check_the_end(world, old)


@pytest.mark.parametrize(("number", "after"), MATRIX)
def test_given_up_and_run_again_with_another_token(number: int, after: bool) -> None:
    world = aged()
    old = world.current()
    killed(world, number, after=after, life=lambda: whole_life(world, token()))
    world.clock.now += 30
    world.rotate(token())
    world.pass_grace()
    world.sweep()
    world.pass_grace()
    world.sweep()
    check_the_end(world, old)


@pytest.mark.parametrize(
    ("number", "after"), [p for p in MATRIX if "imburse.POST keys" in str(p.id) or "put_secret" in str(p.id)]
)
def test_killed_twice_in_the_same_place(number: int, after: bool) -> None:
    world, ticket = aged(), token()
    old = world.current()
    killed(world, number, after=after, life=lambda: whole_life(world, ticket))
    world.clock.now += 30
    world.gate = Gate()
    with contextlib.suppress(Killed):
        again = World.step
        world.gate = Gate(kill_at=number, after=after)
        for step in STEPS:
            again(world, step, ticket)
    world.clock.now += 30
    world.gate = Gate()
    world.rotate(ticket)
    world.pass_grace()
    world.sweep()
    check_the_end(world, old)


@pytest.mark.parametrize(("number", "after"), MATRIX)
def test_given_up_for_good_leaves_nothing_but_a_stored_key(number: int, after: bool) -> None:
    """Nobody rotates again. The sweep alone takes away what stands in no secret."""
    world = aged()
    killed(world, number, after=after, life=lambda: whole_life(world, token()))
    for _ in range(2):
        world.pass_grace()
        world.sweep()
    stored = world.aws.stages["imburse/sandbox/tenant-a"].get("AWSPENDING")
    text = world.aws.versions["imburse/sandbox/tenant-a"].get(stored or "") or ""
    orphans = {key for key in world.accepted() - {world.current(), world.innocent} if key not in text}
    assert orphans == set()
    world.vend()
