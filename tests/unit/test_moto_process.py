"""The embedded DynamoDB answers one request at a time, so that what moto does in steps is done at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from local.moto_process import OneAtATime

PATIENCE_SECONDS = 10


class Application:
    """A WSGI application whose first request stays inside until `leave`."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.leave = threading.Event()
        self.answered: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not self.inside.is_set():
            self.inside.set()
            assert self.leave.wait(PATIENCE_SECONDS)
        self.answered.append(environ["name"])
        return []


@pytest.fixture
def application() -> Application:
    return Application()


def ask(server: OneAtATime, name: str, target: str) -> threading.Thread:
    thread = threading.Thread(target=lambda: server({"name": name, "HTTP_X_AMZ_TARGET": target}, lambda *_: None))
    thread.start()
    return thread


def test_a_request_to_dynamodb_waits_for_the_one_before_it_and_others_do_not(application: Application) -> None:
    server = OneAtATime(application)
    first = ask(server, "first", "DynamoDB_20120810.DeleteItem")
    assert application.inside.wait(PATIENCE_SECONDS)
    second = ask(server, "second", "DynamoDB_20120810.DeleteItem")
    ask(server, "a secret", "secretsmanager.GetSecretValue").join(PATIENCE_SECONDS)
    ask(server, "no target", "").join(PATIENCE_SECONDS)
    assert application.answered == ["a secret", "no target"]
    application.leave.set()
    first.join(PATIENCE_SECONDS)
    second.join(PATIENCE_SECONDS)
    assert application.answered == ["a secret", "no target", "first", "second"]
