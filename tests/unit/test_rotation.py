"""Rotation: what it makes and deletes, what it must never delete, and what it does when something fails."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from imburse_auth.access_token import AccessToken
from imburse_auth.credential import CredentialId
from imburse_auth.errors import (
    CredentialMisconfigured,
    UpstreamAnswer,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from imburse_auth.key_management import KeyManagement, MadeKey
from imburse_auth.transport import Answer
from local.imburse import ImburseKey
from tests.fakes import BASE_URL, NOW, aws_error, secret
from tests.rotation_world import STEPS, EmulatorTransport, Gate, Killed, World, token
from tests.stack import ROOT
from vending.errors import AuditUnavailable
from vending.rotating import SweepIncomplete
from vending.rotation.event import read
from vending.rotation.lease import RotationFailed
from vending.supply.pool import Pool, Pooled
from vending.table import TableUnavailable

POST, LIST, DELETE = "imburse.POST keys", "imburse.GET keys", "imburse.DELETE keys"


def once(call: str, error: Exception) -> Any:
    """An error for the first such call."""
    errors = [error]
    return lambda name: errors.pop() if name == call and errors else None


def every(call: str, error: Exception) -> Any:
    return lambda name: error if name == call else None


def rotated(world: World) -> str:
    """Rotate, with every failed step tried again; the new key."""
    ticket = token()
    for step in STEPS:
        for _ in range(5):
            try:
                world.step(step, ticket)
                break
            except (UpstreamUnavailable, UpstreamProtocol, TableUnavailable):
                world.clock.now += 1
        else:
            raise AssertionError(step)
    return world.current()


def deleted(world: World) -> list[str]:
    return [record["key"]["deleted"] for record in world.audit if "deleted" in record["key"]]


@pytest.fixture
def world() -> World:
    return World()


class TestAKey:
    def test_is_replaced_by_one_of_the_same_name_and_roles_and_everything_else_in_the_secret_stays(
        self, world: World
    ) -> None:
        world.rotate(token())
        members = world.aws.current("sandbox/tenant-a")
        changed = {name for name in members if members[name] != world.original.get(name)}
        assert changed == {"publicKey", "privateKey", "createdAt"}
        assert members["createdAt"] == "2021-02-26T14:33:20Z"
        made = world.imburse.keys.require(members["publicKey"])
        assert (made.name, made.roles, made.tenant_id) == ("settlement", ("tenant-admin",), "tenant-a")
        assert world.accepted() == {"original", world.innocent, members["publicKey"]}, "the old one stays for a while"

    def test_without_a_name_is_named_like_its_credential_and_without_roles_gets_those_that_imburse_lists(self) -> None:
        world = World()
        members = world.original | {"name": None, "roles": None}
        world.aws.create("sandbox/tenant-a", {name: value for name, value in members.items() if value is not None})
        world.rotate(token())
        made = world.imburse.keys.require(world.current())
        assert (made.name, made.roles) == ("tenant-a", ("tenant-admin",))

    def test_is_made_by_the_credential_that_manages_it(self) -> None:
        world = World(managedBy="sandbox/admin")
        world.add("sandbox/admin", secret(publicKey="admin", tenantId=None, roles=["account-admin"]))
        world.imburse.keys.revoke("original")
        world.add("sandbox/tenant-a", world.original | {"roles": ["tenant-app-read"]})  # it could not make one itself
        world.rotate(token())
        assert world.current() in world.accepted()

    @pytest.mark.parametrize(
        ("manager", "members", "rule"),
        [
            ("production/admin", {"tenantId": None}, "same environment"),
            ("sandbox/admin", {"tenantId": None, "accountId": "account-2"}, "same accountId"),
            ("sandbox/admin", {"tenantId": "tenant-b"}, "of the account or of the same tenantId"),
            ("sandbox/admin", {"tenantId": None, "baseUrl": "https://api.imburse.test"}, "same base URL"),
        ],
    )
    def test_is_managed_by_nobody_from_elsewhere(self, manager: str, members: dict[str, Any], rule: str) -> None:
        world = World(managedBy=manager)
        world.add(manager, secret(publicKey="admin", **members))
        with pytest.raises(CredentialMisconfigured, match=f"^managedBy: .*{rule}"):
            world.step("createSecret", token())
        assert POST not in world.gate.calls

    def test_of_an_account_is_not_rotated_and_says_why(self, world: World) -> None:
        world.aws.create("sandbox/tenant-a", world.original | {"tenantId": ""} | {"tenantId": "x"})
        members = {name: value for name, value in world.original.items() if name != "tenantId"}
        world.aws.create("sandbox/tenant-a", members)
        with pytest.raises(RotationFailed, match=r"^tenantId: .*Tenant Portal"):
            world.step("createSecret", token())
        assert not [call for call in world.gate.calls if call.startswith(("imburse", "table"))]

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ({"tenantId": "tenant-b"}, "another account or tenant"),
            ({"accountId": "account-2"}, "another account or tenant"),
            ({"privateKey": "not base64!"}, "privateKey"),
            ({"privateKey": None}, "lacks publicKey"),
            ({"publicKey": "original"}, "was there before"),
            ({"publicKey": "with space"}, "publicKey"),
            ({"roles": ["tenant-app-read"]}, "without all the roles"),
        ],
    )
    def test_that_is_not_what_was_asked_for_is_not_stored_and_not_left_over(
        self, world: World, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], rule: str
    ) -> None:
        send = EmulatorTransport.send

        def twisted(self: EmulatorTransport, method: str, url: str, *args: Any, **options: Any) -> Answer:
            answer = send(self, method, url, *args, **options)
            return Answer(answer.payload | change, None) if (method, url[-5:]) == ("POST", "/keys") else answer

        monkeypatch.setattr(EmulatorTransport, "send", twisted)
        with pytest.raises(UpstreamProtocol, match=rule) as raised:
            world.step("createSecret", token())
        assert "not base64!" not in str(raised.value)
        assert "AWSPENDING" not in world.aws.stages["imburse/sandbox/tenant-a"]
        assert world.accepted() == {"original", world.innocent}

    def test_that_does_not_reach_its_tenant_does_not_pass_the_test(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticket = token()
        world.step("createSecret", ticket)
        others: list[dict[str, Any]] = [
            {"accounts": [{"accountId": "account-1"}], "tenants": [{"tenantId": "tenant-b"}]},
            {"tenants": []},
        ]
        for answer in others:
            monkeypatch.setattr(world.imburse, "me", lambda *_, answer=answer: answer)
            with pytest.raises(UpstreamProtocol, match="does not name"):
                world.step("testSecret", ticket)
        assert world.current() == "original"

    def test_with_another_tenant_in_the_pending_version_does_not_pass_the_test(self, world: World) -> None:
        ticket = token()
        other = json.dumps(secret(tenantId="tenant-b"))
        world.aws.put_secret_value(
            SecretId="imburse/sandbox/tenant-a",
            ClientRequestToken=ticket,
            SecretString=other,
            VersionStages=["AWSPENDING"],
        )
        with pytest.raises(CredentialMisconfigured, match=r"^tenantId: "):
            world.step("testSecret", ticket)


class TestSteps:
    def test_each_may_run_again_and_makes_no_second_key(self, world: World) -> None:
        ticket = token()
        for step in STEPS:
            for _ in range(3):
                world.step(step, ticket)
        for step in STEPS:
            world.step(step, ticket)
        assert len(world.accepted()) == 3
        assert [record["key"] for record in world.audit if "made" in record["key"]] == [{"made": world.current()}]

    def test_of_a_rotation_that_a_later_one_replaced_are_refused(self, world: World) -> None:
        first, second = token(), token()
        world.step("createSecret", first)
        world.step("createSecret", second)
        made = world.gate.calls.count(POST)
        for step in ("createSecret", "testSecret", "finishSecret"):
            with pytest.raises(RotationFailed, match="a later rotation came"):
                world.step(step, first)
        assert world.gate.calls.count(POST) == made
        assert world.current() == "original"

    def test_out_of_their_order_are_refused(self, world: World) -> None:
        for step in ("testSecret", "finishSecret"):
            with pytest.raises(RotationFailed, match="createSecret comes first"):
                world.step(step, token())

    @pytest.mark.parametrize("changed", [{"publicKey": "typed"}, {"poolMin": 3, "poolMax": 9}])
    def test_do_not_undo_what_somebody_stored_since_the_new_key_was_made(
        self, world: World, changed: dict[str, Any]
    ) -> None:
        ticket = token()
        world.step("createSecret", ticket)
        stored = world.original | changed
        world.aws.versions["imburse/sandbox/tenant-a"]["by-hand"] = json.dumps(stored)
        world.aws.stages["imburse/sandbox/tenant-a"]["AWSCURRENT"] = "by-hand"
        with pytest.raises(RotationFailed, match=r"^AWSCURRENT: .* take AWSPENDING off"):
            world.step("finishSecret", ticket)
        assert world.aws.current("sandbox/tenant-a") == stored
        assert not [key for key in world.table.items if key[1].startswith("retired#")]
        # What the message says to do.
        del world.aws.stages["imburse/sandbox/tenant-a"]["AWSPENDING"]
        world.imburse.keys.add(ImburseKey.from_json(stored))
        world.rotate(token())
        assert world.accepted() == {"original", world.innocent, world.current(), stored["publicKey"]}

    def test_leave_no_version_pending_that_secrets_manager_could_take_up_again_later(self, world: World) -> None:
        """Once another version is current, AWSPENDING on the old one reads as a rotation that is not finished."""
        ticket = token()
        world.rotate(ticket)
        assert "AWSPENDING" not in world.aws.stages["imburse/sandbox/tenant-a"]
        world.aws.versions["imburse/sandbox/tenant-a"]["by-hand"] = json.dumps(world.original)
        world.aws.stages["imburse/sandbox/tenant-a"]["AWSPREVIOUS"] = ticket
        world.aws.stages["imburse/sandbox/tenant-a"]["AWSCURRENT"] = "by-hand"
        with pytest.raises(RotationFailed, match="a later rotation came"):
            world.step("finishSecret", ticket)
        assert world.current() == "original"

    def test_leave_their_records_before_what_they_do(self, world: World) -> None:
        ticket = token()
        world.rotate(ticket)
        new = world.current()
        assert [record["key"] for record in world.audit] == [{"made": new}, {"current": new, "retired": "original"}]
        for record in world.audit:
            assert (record["action"], record["function"], record["door"]) == ("rotate", "rotate", "secretsmanager")
            assert (record["credential"], record["requestId"]) == ("sandbox/tenant-a", "request-1")
        calls = world.gate.calls
        put, move = calls.index("aws.put_secret_value"), calls.index("aws.update_secret_version_stage")
        assert calls.index(POST) < calls.index("audit") < put
        assert "audit" in calls[put:move]


class TestOrphans:
    def test_of_an_answer_that_was_lost_are_deleted_before_another_key_is_made(self, world: World) -> None:
        world.gate = Gate(losing=once(POST, UpstreamUnavailable("lost")))
        world.step("createSecret", token())
        assert world.gate.calls.count(POST) == 2
        assert len(world.accepted()) == 3, "original, the innocent and the new one"
        assert len(deleted(world)) == 1

    def test_are_looked_for_three_times_and_then_the_step_fails_with_none_left_over(self, world: World) -> None:
        world.gate = Gate(losing=every(POST, UpstreamUnavailable("lost")))
        with pytest.raises(UpstreamUnavailable):
            world.step("createSecret", token())
        assert world.gate.calls.count(POST) == 3
        assert world.accepted() == {"original", world.innocent}

    def test_of_a_rotation_that_was_given_up_for_a_key_stored_by_hand_are_deleted_by_the_sweep(
        self, world: World
    ) -> None:
        """What put-key tells to do while a rotation is under way; the typed key may have the same name."""
        world.step("createSecret", token())
        del world.aws.stages["imburse/sandbox/tenant-a"]["AWSPENDING"]
        typed = world.original | secret(publicKey=world.made_in_the_portal())
        world.imburse.keys.add(ImburseKey.from_json(typed))
        world.aws.versions["imburse/sandbox/tenant-a"]["by-hand"] = json.dumps(typed)
        world.aws.stages["imburse/sandbox/tenant-a"]["AWSCURRENT"] = "by-hand"
        world.clock.now += 1000
        world.sweep(deleting=False)
        assert world.accepted() == {"original", world.innocent, typed["publicKey"]}
        assert not world.table.items.keys() & {("rotation", "intent#sandbox/tenant-a")}

    def test_are_not_a_namesake_of_one_that_somebody_deleted_by_hand(self, world: World) -> None:
        world.step("createSecret", token())
        made = world.accepted() - {"original", world.innocent}
        del world.aws.stages["imburse/sandbox/tenant-a"]["AWSPENDING"]
        for public_key in made:
            world.imburse.keys.revoke(public_key)
        theirs = world.made_in_the_portal()
        world.clock.now += 1000
        world.sweep()
        assert theirs in world.accepted()

    def test_that_come_up_late_are_deleted_too(self, world: World) -> None:
        """The request was still under way when its time was up."""
        world.gate = Gate(failing=once(POST, UpstreamUnavailable("slow")))
        ticket = token()
        world.step("createSecret", ticket)
        late = world.made_in_the_portal()
        for step in STEPS:
            world.step(step, ticket)
        assert late in deleted(world)
        assert world.accepted() == {"original", world.innocent, world.current()}

    def test_are_not_looked_for_when_imburse_said_no(self, world: World) -> None:
        no = UpstreamRejected("no", upstream=UpstreamAnswer(403))
        world.gate = Gate(failing=every(POST, no))
        with pytest.raises(UpstreamRejected):
            world.step("createSecret", token())
        by_hand = world.made_in_the_portal()  # what an operator may do next
        world.gate = Gate()
        world.rotate(token())
        world.clock.now += 1000
        world.sweep()
        assert by_hand in world.accepted()

    @pytest.mark.parametrize("at", range(1, 5))
    def test_are_never_the_keys_that_somebody_makes_meanwhile_under_the_same_name(self, world: World, at: int) -> None:
        ticket, theirs = token(), []
        for number, step in enumerate(STEPS, 1):
            if number == at + 1:
                theirs.append(world.made_in_the_portal())
            world.step(step, ticket)
        theirs.append(world.made_in_the_portal())
        world.clock.now += 1000
        world.sweep()
        assert set(theirs) <= world.accepted()
        assert deleted(world) == []

    def test_are_left_alone_when_they_cannot_be_told_from_others(self, world: World) -> None:
        world.gate = Gate(kill_at=world.gate_of(POST), after=True)
        with pytest.raises(Killed):
            world.step("createSecret", token())
        theirs = world.made_in_the_portal()
        world.gate, before = Gate(), world.accepted()
        world.clock.now += 30
        with pytest.raises(RotationFailed, match=f"none is deleted.*{theirs}"):
            world.step("createSecret", token())
        assert world.accepted() == before

    def test_are_never_the_key_of_another_credential_of_the_same_tenant_and_name(self, world: World) -> None:
        world.add("sandbox/twin", world.original | secret(publicKey="twin", name="settlement"))
        ticket = token()
        world.step("createSecret", ticket)
        world.gate = Gate(losing=every(POST, UpstreamUnavailable("lost")))
        with pytest.raises(UpstreamUnavailable):
            world.step("createSecret", token())
        world.gate = Gate()
        # The twin is given a key of its own in between, which came after our intent.
        fresh = world.made_in_the_portal()
        world.aws.create("sandbox/twin", world.original | secret(publicKey=fresh))
        world.rotate(token())
        assert fresh in world.accepted()

    def test_are_found_among_a_hundred_credentials_without_losing_the_lease(self, world: World) -> None:
        for number in range(100):
            world.aws.create(f"sandbox/other-{number}", secret())
        world.gate = Gate(
            losing=once(POST, UpstreamUnavailable("lost")),
            moment=lambda: setattr(world.clock, "now", world.clock.now + 0.1),
        )
        world.step("createSecret", token())
        assert len(deleted(world)) == 1

    def test_do_not_remain_whatever_is_lost_in_whichever_order(self) -> None:
        choice = random.Random(20261124)
        for _ in range(60):
            world = World()
            world.grace_seconds = 0
            for kind, call in [(choice.choice(("losing", "failing")), choice.choice((POST, LIST))) for _ in range(4)]:
                world.gate = Gate(**{kind: once(call, UpstreamUnavailable("lost"))})
                new = rotated(world)
                world.clock.now += choice.choice((0, 1, 130))
                world.sweep()
                assert world.accepted() == {new, world.innocent}


class TestWhenSomethingIsDown:
    @pytest.mark.parametrize("operation", ["lease", "get", "put", "hold"])
    def test_the_table_nothing_is_made(self, world: World, operation: str) -> None:
        world.gate = Gate(failing=every(f"table.{operation}", TableUnavailable("down")))
        with pytest.raises(TableUnavailable):
            world.step("createSecret", token())
        assert POST not in world.gate.calls
        world.gate = Gate()
        world.clock.now += 30
        world.rotate(token())
        assert world.accepted() == {"original", world.innocent, world.current()}

    def test_the_audit_trail_a_new_key_is_not_stored_and_an_old_one_not_deleted(self, world: World) -> None:
        world.gate = Gate(failing=every("audit", OSError("full")))
        with pytest.raises(AuditUnavailable):
            world.step("createSecret", token())
        assert "aws.put_secret_value" not in world.gate.calls
        world.gate = Gate()
        world.rotate(token())
        world.pass_grace()
        world.gate = Gate(failing=every("audit", OSError("full")))
        with pytest.raises(SweepIncomplete):
            world.sweep()
        assert DELETE not in world.gate.calls
        world.gate = Gate()
        world.sweep()
        assert world.accepted() == {world.innocent, world.current()}

    def test_imburse_the_step_fails_and_the_next_goes_on(self, world: World) -> None:
        ticket = token()
        world.gate = Gate(failing=every("imburse.POST hmac", UpstreamUnavailable("down")))
        with pytest.raises(UpstreamUnavailable):
            world.step("createSecret", ticket)
        world.gate = Gate()
        world.clock.now += 30
        world.rotate(ticket)
        assert world.accepted() == {"original", world.innocent, world.current()}

    def test_imburse_throttles_nothing_is_left_to_look_for(self, world: World) -> None:
        world.gate = Gate(failing=once(POST, UpstreamThrottled("slow", retry_after_seconds=2)))
        world.step("createSecret", token())
        assert world.gate.calls.count(POST) == 2

    @pytest.mark.parametrize("code", ["AccessDeniedException", "InternalServiceError"])
    def test_secrets_manager_the_step_fails(self, world: World, code: str) -> None:
        for call in ("describe_secret", "get_secret_value", "put_secret_value"):
            world.gate = Gate(failing=every(f"aws.{call}", aws_error(code)))
            with pytest.raises(Exception, match=code):
                world.step("createSecret", token())
            world.clock.now += 30
        world.gate = Gate()
        world.rotate(token())
        assert world.accepted() == {"original", world.innocent, world.current()}

    def test_another_run_is_waited_for_and_then_left_to_its_work(self, world: World) -> None:
        def lease(seconds: float) -> None:
            now_ms = int(world.clock() * 1000)
            until_ms = now_ms + int(seconds * 1000)
            sk = "lease#account-1/tenant-a"
            assert world.table.lease("rotation", sk, now_ms=now_ms, until_ms=until_ms, ttl=0) is not None

        lease(9)
        world.step("createSecret", token())
        lease(100)
        with pytest.raises(RotationFailed, match="another run is at work"):
            world.step("createSecret", token())
        assert world.gate.calls.count(POST) == 1

    def test_a_lease_that_was_lost_keeps_a_run_from_making_or_deleting(self, world: World) -> None:
        world.gate = Gate(moment=lambda: setattr(world.clock, "now", world.clock.now + 11))
        with pytest.raises(RotationFailed, match="it ran out"):
            world.step("createSecret", token())
        assert POST not in world.gate.calls


class TestTheSweep:
    def test_deletes_an_old_key_when_its_grace_is_over_and_not_before(self, world: World) -> None:
        world.rotate(token())
        assert world.sweep() == {"deleted": [], "waiting": 1, "deleting": True}
        world.pass_grace()
        assert world.sweep() == {"deleted": ["sandbox/tenant-a original"], "waiting": 0, "deleting": True}
        assert world.accepted() == {world.innocent, world.current()}
        record = world.audit[-1]
        assert (record["door"], record["key"]) == ("schedule", {"deleted": "original", "why": "retired"})
        assert world.gate.calls.index(DELETE) > len(world.gate.calls) - 1 - world.gate.calls[::-1].index("audit")

    def test_deletes_nothing_while_that_is_turned_off(self, world: World) -> None:
        world.rotate(token())
        world.pass_grace()
        assert world.sweep(deleting=False) == {"deleted": [], "waiting": 1, "deleting": False}
        assert "original" in world.accepted()

    def test_reads_no_secret_while_nothing_is_due(self, world: World) -> None:
        world.rotate(token())
        world.gate = Gate()
        world.sweep()
        assert set(world.gate.calls) == {"table.query"}

    @pytest.mark.parametrize("stage", ["AWSCURRENT", "AWSPENDING"])
    @pytest.mark.parametrize("credential", ["sandbox/tenant-a", "sandbox/another"])
    def test_never_deletes_a_key_that_is_in_use_again_and_its_grace_begins_anew(
        self, world: World, stage: str, credential: str
    ) -> None:
        world.rotate(token())
        if credential == "sandbox/another":
            world.aws.create(credential, world.original)
        name = f"imburse/{credential}"
        version = next(v for v, text in world.aws.versions[name].items() if "original" in str(text))
        world.aws.stages[name] = {"AWSCURRENT": next(iter(world.aws.versions[name])), stage: version}
        world.pass_grace()
        world.sweep()
        assert "original" in world.accepted()
        world.aws.create(credential, world.original | secret(publicKey="newest"))
        world.imburse.keys.add(type(world.imburse.keys.require("original")).from_json(world.aws.current(credential)))
        world.sweep()
        assert "original" in world.accepted(), "whoever held it has the whole grace again"
        world.pass_grace()
        world.sweep()
        assert "original" not in world.accepted()

    @pytest.mark.parametrize("text", ["not json", "[]"])
    def test_deletes_nothing_while_a_secret_cannot_be_read(self, world: World, text: str) -> None:
        world.rotate(token())
        world.pass_grace()
        world.aws.create("sandbox/broken", {})
        (version,) = world.aws.versions["imburse/sandbox/broken"]
        world.aws.versions["imburse/sandbox/broken"][version] = text
        with pytest.raises(SweepIncomplete, match="sandbox/broken"):
            world.sweep()
        assert "original" in world.accepted()

    def test_throws_away_the_tokens_of_the_old_key_and_no_others(self, world: World) -> None:
        world.rotate(token())
        pool, a = Pool(world.table, clock=world.clock), CredentialId("sandbox", "tenant-a")
        for number, key in enumerate(("original", world.current())):
            value = AccessToken(f"token-{number}", int(NOW) + 90_000, "account-1", "tenant-a")
            pool.put(a, Pooled(value, BASE_URL, key, None))
        shared: dict[str, str | int] = {"pk": "shared#sandbox/tenant-a", "sk": "token", "public_key": "original"}
        world.table.put(dict(shared))
        world.pass_grace()
        world.sweep()
        assert [item["public_key"] for item in world.table.partition("pool#sandbox/tenant-a")] == [world.current()]
        assert world.table.partition("shared#sandbox/tenant-a") == []
        world.table.put(shared | {"public_key": world.current()})
        world.rotate(token())
        world.table.put(shared | {"public_key": world.current()})
        world.pass_grace()
        world.sweep()
        assert len(world.table.partition("shared#sandbox/tenant-a")) == 1, "a token of the new key stays"

    def test_takes_a_key_that_is_gone_already_for_deleted(self, world: World) -> None:
        world.rotate(token())
        world.pass_grace()
        world.imburse.keys.revoke("original")
        assert world.sweep()["waiting"] == 0

    def test_goes_on_with_the_others_when_one_fails_and_then_says_so(self, world: World) -> None:
        world.rotate(token())
        world.table.put(
            {
                "pk": "rotation",
                "sk": "retired#sandbox/gone#old",
                "credential": "sandbox/gone",
                "public_key": "old",
                "account": "account-1",
                "tenant": "tenant-a",
                "retired_at": 0,
            }
        )
        world.pass_grace()
        with pytest.raises(SweepIncomplete, match="sandbox/gone"):
            world.sweep()
        assert "original" not in world.accepted()
        assert world.sweep()["waiting"] == 0, "what no later run could do either is told once"

    def test_tells_of_a_secret_that_waits_for_its_deletion_once(self, world: World) -> None:
        world.rotate(token())
        world.pass_grace()
        world.gate = Gate(failing=every("aws.get_secret_value", aws_error("InvalidRequestException")))
        with pytest.raises(SweepIncomplete, match="rotation_failed"):
            world.sweep()
        assert "original" in world.accepted()
        world.gate = Gate()
        assert world.sweep()["waiting"] == 0

    def test_deletes_with_the_managers_token(self) -> None:
        world = World(managedBy="sandbox/admin")
        world.add("sandbox/admin", secret(publicKey="admin", tenantId=None, roles=["account-admin"]))
        world.rotate(token())
        world.pass_grace()
        assert world.sweep()["deleted"] == ["sandbox/tenant-a original"]


def test_no_private_key_is_in_a_record_a_log_line_an_error_or_the_table(world: World) -> None:
    errors = []
    for call, kind in itertools.product(
        (POST, LIST, "audit", "aws.put_secret_value", "table.put", "imburse.GET me"), ("failing", "losing")
    ):
        world.gate = Gate(**{kind: every(call, OSError("trouble"))})
        ticket = token()
        for step in STEPS:
            try:
                world.step(step, ticket)
            except Exception as exc:  # noqa: BLE001 - whatever it says
                errors += [repr(exc), str(exc), repr(exc.__cause__), repr(exc.__context__)]
        world.clock.now += 30
    world.gate = Gate()
    world.rotate(token())
    texts = [json.dumps(world.audit), json.dumps(world.log.lines), *errors, repr(world.table.items)]
    privates = {
        json.loads(text)["privateKey"] for text in world.aws.versions["imburse/sandbox/tenant-a"].values() if text
    }
    assert len(privates) > 2
    assert not [private for private in privates for text in texts if private in text]
    assert "s3cret" not in repr(MadeKey("public", "s3cret", "account", "tenant", None))


class TestEvents:
    @pytest.mark.parametrize("name", ["create", "set", "test", "finish"])
    def test_of_secrets_manager_are_read(self, name: str) -> None:
        asked = read(json.loads((ROOT / f"events/rotate_{name}.json").read_text("utf-8")))
        assert asked is not None
        assert (asked.step, str(asked.credential)) == (f"{name}Secret", "sandbox/tenant-a")

    def test_of_the_schedule_are_the_sweep(self) -> None:
        assert read(json.loads((ROOT / "events/rotate_sweep.json").read_text("utf-8"))) is None

    def test_with_an_unknown_step_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^Step: "):
            read(json.loads((ROOT / "events/rotate_unknown_step.json").read_text("utf-8")))

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"Step": None}, "Step"),
            ({"Step": ["createSecret"]}, "Step"),
            ({"ClientRequestToken": "short"}, "ClientRequestToken"),
            ({"ClientRequestToken": "x" * 65}, "ClientRequestToken"),
            ({"ClientRequestToken": "é" * 40}, "ClientRequestToken"),
            ({"SecretId": "payroll/sandbox/tenant-a"}, "SecretId"),
            ({"SecretId": "imburse/tenant-a"}, "SecretId"),
            ({"SecretId": "imburse/sandbox/tenant-a/more"}, "SecretId"),
            ({"SecretId": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:imburse/sandbox/tenant-a"}, "SecretId"),
            ({"SecretId": "arn:aws:s3:::imburse/sandbox/tenant-a-AbCdEf"}, "SecretId"),
            ({"SecretId": 7}, "SecretId"),
            ({"More": 1}, "event"),
        ],
    )
    def test_that_are_malformed_are_refused_by_field_without_the_value(
        self, change: dict[str, Any], field: str
    ) -> None:
        event = {
            "Step": "createSecret",
            "SecretId": "imburse/sandbox/tenant-a",
            "ClientRequestToken": "x" * 32,
        } | change
        with pytest.raises(ValueError, match=rf"^{field}: ") as raised:
            read(event)
        assert "tenant-a" not in str(raised.value)

    @pytest.mark.parametrize("event", [None, [], "", {"Step": "createSecret"}, {"credential": "sandbox/tenant-a"}])
    def test_of_another_shape_are_refused(self, event: object) -> None:
        with pytest.raises(ValueError, match=r"^event: "):
            read(event)

    def test_may_carry_a_rotation_token(self) -> None:
        event = {"Step": "setSecret", "SecretId": "imburse/sandbox/tenant-a", "ClientRequestToken": "x" * 32}
        assert read(event | {"RotationToken": "anything"}) == read(event)


class TestKeyManagement:
    """What Imburse may answer that the emulator does not."""

    def manage(self, world: World, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> KeyManagement:
        left = list(answers)

        def send(*_: Any, **__: Any) -> Answer:
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return Answer(answer, None)

        transport = EmulatorTransport(world.imburse)
        monkeypatch.setattr(transport, "send", send)
        from imburse_auth.retry import Deadline

        return KeyManagement(transport, "tenant-a", lambda: (BASE_URL, {}), deadline=Deadline.after(60))

    def test_a_bare_list_is_read_too(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        (key,) = self.manage(world, monkeypatch, [{"publicKey": "a", "name": 7}]).list()
        assert (key.public_key, key.name, key.roles) == ("a", None, None)

    @pytest.mark.parametrize("answer", [None, {}, "", {"keys": {}}, [{"name": "x"}], [None], [{"publicKey": ""}]])
    def test_another_list_is_not_taken_for_an_empty_one(
        self, world: World, monkeypatch: pytest.MonkeyPatch, answer: Any
    ) -> None:
        with pytest.raises(UpstreamProtocol):
            self.manage(world, monkeypatch, answer).list()

    def test_a_key_that_is_not_found_and_yet_listed_is_not_taken_for_deleted(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        missing = UpstreamRejected("no", upstream=UpstreamAnswer(404))
        with pytest.raises(UpstreamProtocol, match="does not find a key that it lists"):
            self.manage(world, monkeypatch, missing, [{"publicKey": "a"}]).delete("a")
        self.manage(world, monkeypatch, missing, []).delete("a")
        with pytest.raises(UpstreamRejected):
            self.manage(world, monkeypatch, UpstreamRejected("no", upstream=UpstreamAnswer(403))).delete("a")
