"""What somebody gains who may write one credential's secret: nothing that its own key could not do already."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest

from imburse_auth.errors import CredentialMisconfigured, UpstreamRejected
from local.imburse import ImburseKey
from tests.fakes import secret
from tests.rotation_world import STEPS, Gate, World, token
from vending.rotating import SweepIncomplete
from vending.rotation.lease import RotationFailed

POST = "imburse.POST keys"
READER = ["tenant-transaction-read"]


def world_with_an_admin(**members: Any) -> World:
    """The credential has a key with few rights, and names one with all of them."""
    world = World(managedBy="sandbox/admin", **members)
    world.add("sandbox/admin", secret(publicKey="admin", tenantId=None, roles=["account-admin"]))
    return world


def tenant_b(world: World, name: str) -> str:
    """Another tenant of the same account has a key of that name, in no secret here; its public key."""
    key = ImburseKey("of-tenant-b", secrets.token_bytes(32), "account-1", "tenant-b", ("tenant-admin",), name)
    world.imburse.keys.add(key)
    return key.public_key


@pytest.mark.parametrize(
    "changed",
    [
        {"tenantId": "tenant-b"},
        {"tenantId": "tenant-b", "publicKey": "of-tenant-b"},
        {"publicKey": "somebody-elses"},
    ],
)
def test_no_manager_makes_a_key_for_who_only_says_that_a_tenant_is_theirs(changed: dict[str, str]) -> None:
    world = world_with_an_admin()
    tenant_b(world, "theirs")
    before = {key.public_key for key in world.imburse.keys}
    world.aws.create("sandbox/tenant-a", world.original | changed)
    with pytest.raises(UpstreamRejected):
        world.step("createSecret", token())
    assert POST not in world.gate.calls
    assert {key.public_key for key in world.imburse.keys} == before


def test_no_manager_makes_a_key_with_more_roles_than_the_one_in_use_has() -> None:
    world = world_with_an_admin()
    world.imburse.keys.revoke("original")
    world.add("sandbox/tenant-a", world.original | {"roles": READER})
    world.aws.create("sandbox/tenant-a", world.original | {"roles": [*READER, "tenant-admin"]})
    with pytest.raises(CredentialMisconfigured, match=r"^roles: .*tenant-admin"):
        world.step("createSecret", token())
    assert POST not in world.gate.calls


def test_a_manager_makes_a_key_for_one_that_could_not_itself_and_has_the_same_roles() -> None:
    world = world_with_an_admin()
    world.imburse.keys.revoke("original")
    world.add("sandbox/tenant-a", world.original | {"roles": READER})
    world.rotate(token())
    made = world.imburse.keys.require(world.current())
    assert (made.tenant_id, made.roles) == ("tenant-a", tuple(READER))


@pytest.mark.parametrize("by", ["sweep", "finishSecret"])
def test_what_a_rotation_left_over_is_not_looked_for_at_another_tenant(by: str) -> None:
    """Whose key of the same name would be taken for an orphan."""
    world = world_with_an_admin()
    ticket = token()
    if by == "finishSecret":
        world.step("createSecret", ticket)
    else:
        # Asked for, and the answer is lost: a key of this name may come up.
        world.gate = Gate(losing=lambda call: RotationFailed("killed") if call == POST else None)
        with pytest.raises(RotationFailed):
            world.step("createSecret", ticket)
        world.imburse.keys.revoke(next(iter(world.accepted() - {"original", world.innocent})))
    world.gate = Gate()
    innocent = tenant_b(world, "settlement")
    moved = secret(publicKey="moved", name="settlement", tenantId="tenant-b", managedBy="sandbox/admin")
    world.add("sandbox/tenant-a", moved)
    world.clock.now += 3600
    with pytest.raises((SweepIncomplete, RotationFailed)):
        world.sweep() if by == "sweep" else world.step("finishSecret", ticket)
    assert innocent in {key.public_key for key in world.imburse.keys}
    if by == "sweep":
        assert "failed" not in world.sweep(), "it is told once"


@pytest.mark.parametrize("members", [{}, {"managedBy": "sandbox/admin"}])
def test_a_version_staged_by_hand_has_no_key_deleted_that_only_its_name_was_put_in_the_place_of(
    members: dict[str, str],
) -> None:
    world = world_with_an_admin()
    own = world.original | {"publicKey": "own", "roles": READER}
    world.add("sandbox/tenant-a", own)
    fake = {name: value for name, value in own.items() if name != "managedBy"} | {"publicKey": world.innocent}
    world.aws.create("sandbox/tenant-a", fake | members)
    ticket = token()
    world.aws.announce("sandbox/tenant-a", ticket)
    world.aws.put_secret_value(
        SecretId="imburse/sandbox/tenant-a",
        ClientRequestToken=ticket,
        SecretString=json.dumps(own),
        VersionStages=["AWSPENDING"],
    )
    for step in STEPS[:3]:
        world.step(step, ticket)
    with pytest.raises(RotationFailed, match="AWSCURRENT"):
        world.step("finishSecret", ticket)
    world.aws.create("sandbox/tenant-a", own)  # who manages it is said now
    world.pass_grace()
    world.sweep()
    assert world.innocent in world.accepted()
