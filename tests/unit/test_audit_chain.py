"""The chain of audit records, as AuditTrail writes it and `audit verify` reads it: what is planted is found, what is not is not."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imburse_vending.audit_chain import Expected, Finding, check, digest_of
from imburse_vending.audit_file import AuditFile, AuditLine
from vending.errors import AuditUnavailable
from vending.record.audit import AuditRecord, AuditTrail


def record(number: int = 0, **changes: Any) -> AuditRecord:
    token = {"sha256": hashlib.sha256(str(number).encode()).hexdigest(), "expires": 1_614_351_800, "source": "exchange"}
    members = {
        "caller": "alias/settlement-job",
        "action": "vend",
        "credential": "sandbox/tenant-a",
        "count": 1,
        "decision": "allow",
        "policies": ("settlement-job-small-batches",),
        "outcome": "vended",
        "tokens": [token],
    }
    return AuditRecord(f"request-{number}", f"request-{number}", "vend", "invoke", **{**members, **changes})


def trail(count: int, write: Callable[[str], None] | None = None) -> list[str]:
    """The lines of one execution environment."""
    lines: list[str] = []
    one = AuditTrail(write or lines.append)
    for number in range(count):
        one.write(record(number), now=1_614_350_000 + number)
    return lines


def as_file(lines: list[str], name: str = "a.log") -> AuditFile:
    """What audit_file.scan makes of these lines."""
    good, bad = [], []
    for number, line in enumerate("\n".join(lines).split("\n"), start=1):
        try:
            good.append(AuditLine(number, line, json.loads(line)))
        except ValueError:
            bad.append((number, line))
    audit = tuple(line for line in good if isinstance(line.record, dict) and line.record.get("event") == "audit")
    return AuditFile(Path(name), audit, tuple((n, line) for n, line in bad if '"event": "audit"' in line))


def found(*files: list[str], **options: Any) -> list[Finding]:
    return check([as_file(lines, f"{number}.log") for number, lines in enumerate(files)], **options)[1]


def whats(*files: list[str], **options: Any) -> set[str]:
    return {finding.what for finding in found(*files, **options)}


# What is written


def test_each_record_names_the_one_before_by_the_hash_of_its_text() -> None:
    lines = trail(3)
    first, second, third = map(json.loads, lines)
    assert [one["sequence"] for one in (first, second, third)] == [1, 2, 3]
    assert len({one["environment"] for one in (first, second, third)}) == 1
    assert "previous" not in first
    assert second["previous"] == hashlib.sha256(lines[0].encode()).hexdigest()
    assert third["previous"] == hashlib.sha256(lines[1].encode()).hexdigest()
    assert "instead" not in second


def test_environments_restored_from_one_snapshot_have_ids_of_their_own() -> None:
    written: list[str] = []
    snapshot = AuditTrail()  # what init made, and SnapStart copies
    ids = set()
    for _ in range(3):
        restored = AuditTrail.__new__(AuditTrail)
        state = {name: value for name, value in vars(snapshot).items() if name != "_lock"}
        vars(restored).update(copy.deepcopy(state), _lock=threading.Lock(), _write=written.append)
        restored.write(record(), now=0)
        ids.add(json.loads(written[-1])["environment"])
    assert len(ids) == 3
    assert all(len(one) == 32 for one in ids)


def test_threads_share_one_chain_and_one_writes_at_a_time() -> None:
    lines: list[str] = []
    second = threading.Event()

    def write(line: str) -> None:
        if lines:
            second.set()
        else:
            lines.append("")
            assert not second.wait(0.1), "another thread wrote while this one did"
            lines.clear()
        lines.append(line)

    shared = AuditTrail(write)
    threads = [threading.Thread(target=lambda: shared.write(record(), now=0)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, 7))
    assert found(lines) == []


# When writing fails


class Output(io.StringIO):
    """Standard output that takes `takes` characters of the next line and then fails, as often as told."""

    def __init__(self) -> None:
        super().__init__()
        self.fails: list[int] = []

    def write(self, text: str) -> int:
        if self.fails:
            super().write(text[: self.fails.pop(0)])
            raise OSError("no space left")
        return super().write(text)


def written_with(fails: list[int], monkeypatch: pytest.MonkeyPatch, before: int = 2, after: int = 2) -> list[str]:
    output = Output()
    monkeypatch.setattr(sys, "stdout", output)
    one = AuditTrail()
    for number in range(before):
        one.write(record(number), now=number)
    output.fails = list(fails)
    for number in range(len(fails)):
        with pytest.raises(AuditUnavailable):
            one.write(record(100 + number), now=before)
    for number in range(after):
        one.write(record(200 + number), now=before + number)
    return output.getvalue().split("\n")


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("fails", [[0], [10**6], [20], [60], [300], [300, 10**6, 0, 75], [10**6, 10**6]], ids=str)
def test_the_chain_is_whole_wherever_a_write_failed(
    fails: list[int], before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = written_with(fails, monkeypatch, before=before)
    chains, findings = check([as_file(lines)])
    assert findings == []
    (chain,) = chains
    assert sorted(chain.entries) == list(range(1, before + 3))
    assert len(chain.void) == fails.count(10**6), "what was written whole all the same is known to be void"
    assert '"instead"' in lines[-3]
    assert '"instead"' not in lines[-2]


def test_a_record_that_cannot_be_made_takes_no_number() -> None:
    lines: list[str] = []
    one = AuditTrail(lines.append)
    one.write(record(), now=0)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(AuditUnavailable):
        one.write(record(tokens=endless), now=0)
    one.write(record(), now=1)
    assert found(lines) == []
    assert "instead" not in json.loads(lines[1])


def test_an_output_that_never_works_again_fills_no_memory() -> None:
    def fail(_: str) -> None:
        raise OSError

    one = AuditTrail(fail)
    for number in range(100):
        with pytest.raises(AuditUnavailable):
            one.write(record(number), now=number)
    assert len(one._failed) == 16


def test_a_fragment_explains_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written_with([300], monkeypatch)
    gone = next(n for n, line in enumerate(lines) if '"sequence": 3' in line and '"instead"' in line)
    assert whats(lines[:gone] + lines[gone + 1 :]) == {"missing", "unreadable"}


def test_a_fragment_of_another_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written_with([300], monkeypatch)
    (finding,) = found([*lines, trail(1)[0][:300]])
    assert (finding.what, finding.line) == ("unreadable", len(lines) + 1)


def test_a_void_record_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written_with([10**6], monkeypatch)
    assert found([*lines, lines[2]]) != []


def test_nobody_makes_a_record_void_by_a_forged_one() -> None:
    lines = trail(4)
    forged = json.loads(lines[1]) | {"caller": "alias/somebody", "instead": [digest_of(lines[1])]}
    assert "changed" in whats([*lines, json.dumps(forged)])


# What verify finds


def test_an_untouched_file_is_found_well_in_any_order_with_anything_in_between() -> None:
    shuffler = random.Random(7)
    for _ in range(20):
        lines = [line for _ in range(5) for line in trail(shuffler.randint(1, 9))]
        lines += ['{"level": "INFO", "message": "\\"event\\": \\"audit\\""}', "REPORT RequestId: 1", "", "{}", "[1, 2]"]
        shuffler.shuffle(lines)
        half = len(lines) // 2
        assert found(lines[:half], lines[half:]) == []


def test_what_a_finding_says_is_enough_to_look_there() -> None:
    lines = trail(4)
    environment = json.loads(lines[0])["environment"]
    del lines[2]
    (finding,) = found(["other", *lines])
    assert (finding.what, str(finding.file), finding.line) == ("missing", "0.log", 4)
    assert (finding.environment, finding.sequence) == (environment, 4)
    assert "record 3 is not there" in finding.detail


def test_of_two_records_with_one_number_the_forged_one_is_named() -> None:
    lines = trail(4)
    forged = json.dumps(json.loads(lines[1]) | {"caller": "alias/somebody"})
    (finding,) = found([lines[0], forged, *lines[1:]])
    assert (finding.what, finding.line, finding.sequence) == ("forged", 2, 2)
    assert "line 3" in finding.detail


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"previous": "0" * 64}, "forged"),  # the first record names one
        ({"sequence": 0}, "unchained"),
        ({"sequence": True}, "unchained"),
        ({"sequence": "1"}, "unchained"),
        ({"environment": None}, "unchained"),
        ({"environment": ["x"]}, "unchained"),
        ({"instead": "x"}, "unchained"),
        ({"caller": "alias/somebody"}, "changed"),
    ],
)
def test_a_forged_first_record_is_found(change: dict[str, Any], what: str) -> None:
    lines = trail(3)
    lines[0] = json.dumps(json.loads(lines[0]) | change)
    assert what in whats(lines)


def test_a_chain_that_begins_in_the_middle_is_found_unless_the_file_does() -> None:
    lines = trail(5)[2:]
    assert whats(lines) == {"missing"}
    assert found(lines, partial=True) == []
    assert whats([lines[0], lines[2]], partial=True) == {"missing"}


def test_a_record_in_the_middle_that_names_none_before_it_is_found() -> None:
    lines = trail(3)[1:]
    begun = json.loads(lines[0])
    del begun["previous"]
    assert "forged" in whats([json.dumps(begun), lines[1]], partial=True)


def expected(*files: list[str]) -> dict[str, Expected]:
    chains, _ = check([as_file(lines) for lines in files])
    return {c.environment: Expected(c.ends()[1].sequence, c.ends()[1].digest) for c in chains}


def test_what_a_chain_cannot_show_an_earlier_look_does() -> None:
    one, two = trail(5), trail(3)
    seen = expected(one, two)
    fourth = json.dumps(json.loads(one[3]) | {"caller": "alias/somebody"})
    fifth = json.dumps(json.loads(one[4]) | {"previous": digest_of(fourth)})
    void = json.loads(one[4]) | {"caller": "alias/somebody", "instead": [digest_of(one[4])]}
    unseen = {
        "the last cut off": [*one[:4], *two],
        "an environment left out": one,
        "the last changed": [*one[:4], one[4].replace("alias/settlement-job", "alias/somebody"), *two],
        "the end written anew": [*one[:3], fourth, fifth, *two],
        "the last made void by one behind it": [*one, json.dumps(void), *two],
    }
    for name, lines in unseen.items():
        assert found(lines) == [], name
        assert whats(lines, expected=seen) == {"unexpected"}, name
    assert found(one, two, trail(2), expected=seen) == []


def test_an_earlier_look_may_lie_before_a_file_that_begins_in_the_middle() -> None:
    lines = trail(6)
    seen = expected(lines[:2], trail(3))
    assert found(lines[3:], expected=seen, partial=True) == []
    assert whats(lines[:1], expected=seen, partial=True) == {"unexpected"}


# Random changes, planted in recorded trails


class Planted:
    """A file of several environments' trails, and one change to it that must be found."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.trails = [trail(self.random.randint(3, 7)) for _ in range(3)]

    def plant(self, kind: str) -> list[str]:
        """Any record but the last of its environment, for which a chain cannot vouch."""
        lines = self.random.choice(self.trails)
        place = self.random.randrange(len(lines) - 1)
        getattr(self, kind)(lines, place)
        mixed = [line for one in self.trails for line in one]
        self.random.shuffle(mixed)
        return mixed

    def edit(self, lines: list[str], place: int) -> None:
        at = self.random.randrange(len(lines[place]))
        letter = self.random.choice([c for c in '0a}",: \\é' if c != lines[place][at]])
        lines[place] = lines[place][:at] + letter + lines[place][at + 1 :]

    def insert_character(self, lines: list[str], place: int) -> None:
        at = self.random.randrange(len(lines[place]))
        lines[place] = lines[place][:at] + self.random.choice("x1 ") + lines[place][at:]

    def delete(self, lines: list[str], place: int) -> None:
        del lines[place]

    def duplicate(self, lines: list[str], place: int) -> None:
        lines.append(lines[place])

    def truncate(self, lines: list[str], place: int) -> None:
        lines[place] = lines[place][: self.random.randrange(len(lines[place]))]

    def glue(self, lines: list[str], place: int) -> None:
        lines[place] += lines.pop(place + 1)

    def renumber(self, lines: list[str], place: int) -> None:
        """Two records change places, each with the chain members of the other."""
        one, two = json.loads(lines[place]), json.loads(lines[place + 1])
        links = ("sequence", "previous")
        lines[place] = json.dumps(two | {n: one[n] for n in links if n in one})
        lines[place + 1] = json.dumps(one | {n: two[n] for n in links if n in two})

    def forge(self, lines: list[str], place: int) -> None:
        """A record of somebody's making, whose own link is right."""
        forged = json.loads(lines[place]) | {"caller": "alias/somebody", "requestId": "forged"}
        lines.append(json.dumps(forged))

    def forge_between(self, lines: list[str], place: int) -> None:
        """The same, and the one after it made to name it."""
        forged = json.loads(lines[place]) | {"caller": "alias/somebody"}
        lines[place] = json.dumps(forged)
        if place + 2 < len(lines):
            lines[place + 1] = json.dumps(json.loads(lines[place + 1]) | {"previous": digest_of(lines[place])})

    def move_to_another_environment(self, lines: list[str], place: int) -> None:
        other = next(one for one in self.trails if one is not lines)
        moved = json.loads(lines.pop(place)) | {"environment": json.loads(other[0])["environment"]}
        other.append(json.dumps(moved))

    def alone(self, lines: list[str], place: int) -> None:
        """A forged record without a place in any chain."""
        links = ("environment", "sequence", "previous")
        lines.append(json.dumps({n: v for n, v in json.loads(lines[place]).items() if n not in links}))


KINDS = sorted(name for name in vars(Planted) if not name.startswith("_") and name != "plant")


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, database=None)
def test_every_planted_change_is_found_and_the_file_was_well_before(kind: str, seed: int) -> None:
    planted = Planted(seed)
    assert found([line for one in planted.trails for line in one]) == []
    assert found(planted.plant(kind)) != [], (kind, seed)
