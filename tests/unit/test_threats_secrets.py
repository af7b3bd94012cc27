"""The threat model, what leaves a function that fails: no key, signature or token, however deep somebody looks into the error."""

from __future__ import annotations

import faulthandler
import io
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any
from unittest import mock

import botocore.exceptions
import pytest
import requests
from awslambdaric import bootstrap
from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller

from imburse_auth.errors import UpstreamProtocol, UpstreamUnavailable
from tests.fakes import Answered, aws_error, secret
from tests.machine import ENVIRON, Context, Machine, api_event, handler_module
from tests.rotation_world import STEPS, Gate, World, token
from vending.errors import bare

SINGLE = {"credential": "sandbox/tenant-a"}

# What goes wrong, with the key, the signature or the token in the very error where somebody could have put it there.
FAULTS: dict[str, Callable[[Machine], object]] = {
    "a secret lacks a field": lambda m: m.aws.put("sandbox/tenant-a", m.members | {"accountId": None}),
    "a key is not base64": lambda m: m.aws.put("sandbox/tenant-a", m.members | {"privateKey": m.members["privateKey"] + "\n"}),
    "a secret is not JSON": lambda m: m.aws.put("sandbox/tenant-a", json.dumps(m.members)[:-1]),
    "a key stands in another field": lambda m: m.aws.put("sandbox/tenant-a", m.members | {"reuse": m.members["privateKey"]}),
    "a key stands in the base URL": lambda m: m.aws.put("sandbox/tenant-a", m.members | {"baseUrl": f"https://{m.members['privateKey']}.test"}),
    "a key stands under a misspelt name": lambda m: m.aws.put("sandbox/tenant-a", m.members | {"privatekey": m.members["privateKey"]}),
    "the key is refused": lambda m: m.imburse.keys.clear(),
    "Imburse echoes the header": lambda m: setattr(m.imburse, "always", lambda r: m.imburse.answer(str(r.headers).encode())),
    "Imburse refuses and echoes": lambda m: setattr(m.imburse, "always", lambda r: m.imburse.refuse(400, str(r.headers["Authorization"]))),
    "Imburse answers an expired token": lambda m: setattr(m.imburse, "always", lambda r: m.imburse.answer({"accessToken": _kept(m), "expires": 1})),
    "Imburse repeats a token": lambda m: setattr(m.imburse, "always", lambda r: m.imburse.answer({"accessToken": _kept(m), "expires": 1614351800})),
    "the connection breaks": lambda m: setattr(m.imburse, "always", lambda r: requests.ConnectionError(str(r.headers))),
    "a header is invalid": lambda m: setattr(m.imburse, "always", lambda r: requests.exceptions.InvalidHeader(str(r.headers))),
    "a bug while sending": lambda m: setattr(m.imburse, "always", lambda r: RuntimeError(str(r.headers))),
    "a bug while reading": lambda m: setattr(m.aws, "failure", RuntimeError(m.members["privateKey"])),
    "AWS says the key": lambda m: setattr(m.aws, "failure", aws_error(m.members["privateKey"])),
    "AWS does not answer": lambda m: setattr(m.aws, "failure", botocore.exceptions.EndpointConnectionError(endpoint_url="https://x.test")),
    "memory runs out": lambda m: setattr(m.imburse, "always", lambda r: MemoryError(str(r.headers))),
    "the record cannot be written": lambda m: setattr(m, "audit_failure", OSError(m.members["privateKey"])),
    "a bug while the record is written": lambda m: setattr(m, "audit_failure", RuntimeError(m.members["privateKey"])),
}  # fmt: skip


def _kept(machine: Machine) -> str:
    machine.imburse.tokens.setdefault("canary-token-0123456789", "key")
    return "canary-token-0123456789"


def _secrets_of(machine: Machine) -> list[str]:
    signatures = [str(request.headers["Authorization"]).rsplit(":", 1)[-1] for request in machine.imburse.requests]
    return [machine.members["privateKey"], *machine.imburse.tokens, *signatures]


def _frames(error: BaseException) -> Iterator[FrameType]:
    """Every frame behind an error, and behind what it came of, whether or not it would be shown."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        link: TracebackType | None = one.__traceback__
        while link is not None:
            yield link.tb_frame
            link = link.tb_next


def _from_the_handler_on(error: BaseException) -> TracebackType | None:
    """The traceback without the frames of these tests, which know the secrets."""
    link = error.__traceback__
    while link is not None and "/tests/" in link.tb_frame.f_code.co_filename:
        link = link.tb_next
    return link


def _everything(error: BaseException) -> str:
    """What the nosiest reporter could make of an error: with the locals of each frame, and of each exception behind it."""
    told = traceback.TracebackException(type(error), error, _from_the_handler_on(error), capture_locals=True)
    text = ["".join(told.format(chain=True)), repr(error), str(error), repr(error.__dict__), repr(error.args)]
    behind: list[BaseException | None] = [error.__cause__, error.__context__]
    text += [
        "".join(traceback.TracebackException.from_exception(one, capture_locals=True).format()) for one in behind if one
    ]
    text += [repr(frame.f_locals) for frame in _frames(error) if "/tests/" not in frame.f_code.co_filename]
    log = logging.StreamHandler(io.StringIO())
    shown = (type(error), error, _from_the_handler_on(error))
    log.handle(logging.LogRecord("any", logging.ERROR, __file__, 1, "failed", None, shown))
    return "\n".join([*text, log.stream.getvalue()])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("count", [1, 3])
def test_no_secret_is_in_the_traceback_of_what_leaves_a_function_with_all_its_locals(fault: str, count: int) -> None:
    machine = Machine()
    FAULTS[fault](machine)
    if fault == "Imburse repeats a token":
        machine.invoke(SINGLE)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is
        machine.invoke(SINGLE | {"count": count})
    told = _everything(caught.value)
    assert [value for value in _secrets_of(machine) if value in told] == []
    assert (caught.value.__cause__, caught.value.__context__) == (None, None), "nothing stands behind it"
    ours = [frame.f_code.co_filename for frame in _frames(caught.value) if "/tests/" not in frame.f_code.co_filename]
    assert [Path(file).name for file in ours] == ["vend.py"], "and no frame but the handler's own"


class Runtime:
    """Lambda's runtime interface, as far as awslambdaric reports to it, and the log that it writes itself."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.marshaller = LambdaMarshaller()

    def log_error(self, lines: list[str]) -> None:
        self.said += lines

    def __getattr__(self, name: str) -> Callable[..., None]:
        assert name.startswith("post_")
        return lambda *said: self.said.extend(map(str, said))

    def run(self, handler: Any, event: object) -> str:
        arn = Context().invoked_function_arn
        bootstrap.handle_event_request(
            self, handler, "request-1", json.dumps(event), "application/json", None, None, arn, 9e12, None, self
        )
        return "\n".join(self.said)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("door", ["vend", "api"])
def test_no_secret_is_in_what_lambdas_own_runtime_reports_and_logs(
    fault: str, door: str, capfd: pytest.CaptureFixture[str]
) -> None:
    machine = Machine()
    FAULTS[fault](machine)
    if fault == "Imburse repeats a token":
        machine.invoke(SINGLE)
    module = handler_module(door)
    with mock.patch.object(module, "vending", machine.vending):
        said = Runtime().run(module.handler, SINGLE if door == "vend" else api_event())
    assert "urn:imburse-vending:error:" in said
    captured = capfd.readouterr()
    assert [value for value in _secrets_of(machine) if value in said + captured.out + captured.err] == []


def test_a_crash_in_the_middle_of_an_exchange_dumps_no_value(tmp_path: Path) -> None:
    """faulthandler, which a segmentation fault or a time-out starts, while key, signature and token are all in some frame."""
    machine = Machine()
    dump = tmp_path / "dump"
    with dump.open("w") as file:

        def crash(request: requests.PreparedRequest) -> Answered:
            faulthandler.dump_traceback(file)
            return machine.imburse.obey(request)

        machine.imburse.script = [crash]
        machine.invoke(SINGLE)
    told = dump.read_text()
    assert "in _once" in told or "in send" in told
    assert [value for value in [*_secrets_of(machine), machine.members["publicKey"]] if value in told] == []


# The functions that nobody calls but a schedule, a stream or Secrets Manager


ROTATION = {
    "rotation is told no": ("imburse.POST keys", UpstreamProtocol("Imburse made a key that cannot be used")),
    "rotation's answer is lost": ("imburse.GET me", UpstreamUnavailable("no answer from Imburse")),
    "rotation meets a bug": ("aws.put_secret_value", RuntimeError("a bug")),
    "rotation cannot write its record": ("audit", OSError("full")),
}


@pytest.mark.parametrize("fault", ROTATION)
@pytest.mark.parametrize("kind", ["failing", "losing"])
def test_no_key_that_was_just_made_is_in_the_traceback_of_a_rotation_that_fails(fault: str, kind: str) -> None:
    world = World()
    world.add("sandbox/other", secret(publicKey="other"))
    call, error = ROTATION[fault]
    module = handler_module("rotate")
    left: list[Exception] = []
    world.gate = Gate(**{kind: lambda name: error if name == call else None})  # type: ignore[arg-type]
    ticket = token()
    for step in STEPS:
        event = {"Step": step, "SecretId": "imburse/sandbox/tenant-a", "ClientRequestToken": ticket}
        with mock.patch.object(module, "rotating", world.process()):
            try:
                module.handler(event, Context(remaining_ms=60_000))
            except Exception as exc:  # noqa: BLE001 - whichever it is
                left.append(exc)
    assert left, "something went wrong"
    stored = [json.loads(text) for versions in world.aws.versions.values() for text in versions.values() if text]
    privates = {members["privateKey"] for members in stored}
    for one in left:
        told = _everything(one)
        assert [value for value in privates if value in told] == []
        assert not re.search(r"Bearer [A-Za-z0-9]|Hmac [A-Za-z0-9]|[A-Za-z0-9+/]{43}=", told)


@pytest.mark.parametrize("name", ["refill", "probe", "access_report", "rotate"])
def test_whatever_leaves_a_scheduled_function_says_where_and_holds_no_value(name: str) -> None:
    module = handler_module(name)
    canary = "canary-" + "0123456789abcdef" * 2

    def deep(depth: int) -> None:
        held = {"privateKey": canary}
        if depth:
            deep(depth - 1)
        assert held
        try:
            raise ValueError(canary)
        except ValueError as exc:
            raise RuntimeError('a message\nof two lines {"event": "audit"}') from exc

    class Broken:
        def run(self, *_: object, **__: object) -> None:
            deep(3)

    part = {"refill": "filling", "probe": "probing", "access_report": "report", "rotate": "rotating"}[name]
    with mock.patch.object(module, part, Broken()), pytest.raises(RuntimeError) as caught:
        module.handler({}, Context())
    assert str(caught.value) == r'a message\nof two lines {"event": "audit"}'
    frames = [frame for frame in _frames(caught.value) if frame.f_code.co_name in ("run", "deep")]
    assert len(frames) == 5, "where it came from is still told"
    assert all(canary not in repr(frame.f_locals) for frame in frames)
    assert canary not in _everything(caught.value)
    with mock.patch.object(module, part, Broken()):
        said = Runtime().run(module.handler, {})
    assert canary not in said
    assert all("\n" not in line or line.startswith("{") for line in said.split("\n"))


@pytest.mark.parametrize("text", ["", "plain", "ü", "a\nb", "a\u2028b", "\ud800", "\x1b[2J"])
def test_what_an_error_says_is_one_line(text: str) -> None:
    for exc in (ValueError(text), KeyError(text), OSError(text)):
        said = str(bare(exc))
        assert said.isascii()
        assert said.isprintable()
    assert str(bare(ValueError("plain"))) == "plain"


def test_the_errors_of_a_group_are_bare_too() -> None:
    def fail() -> None:
        private = "p" * 40
        raise ValueError(f"two\nlines {len(private)}")

    with pytest.raises(ValueError, match="two") as caught:
        fail()
    group = bare(ExceptionGroup("several", [ExceptionGroup("inner", [caught.value])]))
    (inner,) = group.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert str(inner.exceptions[0]).isprintable()
    (frame,) = [frame for frame in _frames(inner.exceptions[0]) if frame.f_code.co_name == "fail"]
    assert frame.f_locals == {}


def test_the_settings_of_these_tests_are_those_of_the_functions() -> None:
    assert ENVIRON["AWS_ACCESS_KEY_ID"] == "testing"
