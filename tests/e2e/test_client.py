"""The client in real services against the local stack: a token for each call, and no call lost while tokens and keys die.

Issue 5's proof.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import boto3
import httpx
import pytest
import requests

from imburse_auth.client import ApiSource, InvokeSource, Misdirected, Source, VendedAuth, VendedSession, VendingFailed
from imburse_auth.client.httpx_auth import HttpxVendedAuth
from local.api_caller import LocalCaller
from local.imburse import Imburse
from local.imburse_faults import Fault
from local.serving import in_background
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings
from tests.client_wire import CountingSource
from tests.fakes import secret
from tests.processes import wait_until

HERE = Path(__file__).parent
CREDENTIAL = "sandbox/tenant-a"
THREADS = 20
SERVICE_CALLS = 450
JOB_CALLS = 150


class World:
    """The stack, and what rotates the key behind the credential."""

    def __init__(self, stack: LocalStack, members: dict[str, Any]) -> None:
        assert stack.imburse is not None
        self.stack = stack
        self.imburse: Imburse = stack.imburse
        self._members = members
        self._secrets = boto3.Session("local", "local", region_name=REGION).client(
            "secretsmanager", endpoint_url=stack.moto_url
        )

    def rotate(self) -> None:
        """A new key at Imburse, stored in the place of the old one, which is revoked: as a rotation without any grace."""
        old, self._members = self._members, secret()
        added = requests.post(self.stack.imburse_url + "/control/keys", json=self._members, timeout=10)
        assert added.status_code == 201
        self._secrets.put_secret_value(SecretId=f"imburse/{CREDENTIAL}", SecretString=json.dumps(self._members))
        gone = requests.delete(f"{self.stack.imburse_url}/control/keys/{old['publicKey']}", timeout=10)
        assert gone.status_code == 204

    def expire(self) -> None:
        """An hour passes at Imburse: every token that is out there has expired."""
        self.imburse.faults.add(Fault("clock", seconds=3600))

    def source(self, door: str = "api", role: str = "orders") -> Source:
        if door == "api":
            return ApiSource(self.stack.api_url, session=boto3.Session(role, f"{role}-secret", region_name=REGION))
        session = boto3.Session("local", "local", region_name=REGION)
        client = session.client("lambda", endpoint_url=self.stack.lambda_url)
        return InvokeSource("imburse-vending-vend:settlement-job", client=client)

    def environment(self, **variables: str) -> dict[str, str]:
        """A process's variables, as `.local/env` sets them."""
        return {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": "orders",
            "AWS_SECRET_ACCESS_KEY": "orders-secret",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL_LAMBDA": self.stack.lambda_url,
            **variables,
        }


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    callers = {
        role: LocalCaller(role, f"{role}-secret", f"arn:aws:iam::{ACCOUNT_ID}:role/{role}")
        for role in ("orders", "operators", "stranger")
    }
    members = secret()
    settings = StackSettings(secrets={f"imburse/{CREDENTIAL}": json.dumps(members)}, callers=callers, concurrency=4)
    with in_background(LocalStack(settings)) as stack:
        yield World(stack, members)


@pytest.fixture
def world(running: World) -> Iterator[World]:
    running.imburse.reset()
    yield running
    running.imburse.reset()


# The proof


@contextmanager
def service(world: World) -> Iterator[str]:
    """The Flask app in a process of its own; its URL."""
    command = [sys.executable, str(HERE / "payout_service.py")]
    environment = world.environment(VENDING_API=world.stack.api_url)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_no_call_fails_and_no_token_is_used_twice_while_tokens_expire_and_keys_rotate(world: World) -> None:
    command = [sys.executable, str(HERE / "settlement_job.py"), str(JOB_CALLS)]
    environment = world.environment(VENDING_FUNCTION="imburse-vending-vend:settlement-job")
    done: list[int] = []
    busy: set[int] = set()
    troubles: list[Callable[[], None]] = [world.rotate, world.expire, world.rotate, world.expire, world.rotate]

    with service(world) as url, ThreadPoolExecutor(THREADS) as pool, requests.Session() as callers:

        def call(number: int) -> None:
            busy.add(number)
            done.append(callers.get(url + "/reach", timeout=30).status_code)
            busy.discard(number)

        assert callers.get(url + "/reach", timeout=30).json()["tries"] == 1
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as job:
            try:
                before: set[int] = set()
                calls = [pool.submit(call, number) for number in range(SERVICE_CALLS)]
                for number, trouble in enumerate(troubles, 1):
                    enough = number * SERVICE_CALLS // (len(troubles) + 1)
                    wait_until(lambda enough=enough: len(done) >= enough, "the calls go on", seconds=60)  # type: ignore[misc]
                    wait_until(lambda before=before: not before & busy, "no call meets two troubles")  # type: ignore[misc]
                    trouble()
                    before = set(busy)
                for each in calls:
                    each.result(timeout=60)
                output, _ = job.communicate(timeout=60)
            finally:
                job.kill()

    assert Counter(done) == {200: SERVICE_CALLS}
    assert json.loads(output) == {"200": JOB_CALLS}
    statistics = world.imburse.statistics
    assert statistics.tokens_refused == 0  # none was presented twice
    assert statistics.tokens_used == SERVICE_CALLS + JOB_CALLS + 1
    assert statistics.identity_requests > statistics.tokens_used  # some died on their way, or this would prove nothing


@pytest.mark.parametrize("door", ["api", "invoke"])
@pytest.mark.parametrize("trouble", ["rotate", "expire"])
def test_tokens_taken_ahead_that_die_cost_one_more_try_and_no_call(world: World, door: str, trouble: str) -> None:
    with VendedSession(CREDENTIAL, world.source(door), ahead=5) as session:
        assert session.get("/v1/identity/me").history == []
        getattr(world, trouble)()
        answers = [session.get("/v1/identity/me") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [len(answer.history) for answer in answers] == [1, 0, 0, 0, 0, 0]
    assert world.imburse.statistics.tokens_refused == 0


@pytest.mark.parametrize("trouble", ["rotate", "expire"])
def test_httpx_rides_it_out_too(world: World, trouble: str) -> None:
    auth = HttpxVendedAuth(CREDENTIAL, world.source(), ahead=5)
    url = auth.base_url() + "/v1/identity/me"

    async def at_once() -> list[int]:
        async with httpx.AsyncClient(auth=auth, trust_env=False) as client:
            statuses: list[int] = []

            async def call() -> None:
                statuses.append((await client.get(url)).status_code)

            async with anyio.create_task_group() as group:
                for _ in range(THREADS):
                    group.start_soon(call)
            return statuses

    getattr(world, trouble)()
    assert anyio.run(at_once) == [200] * THREADS
    with httpx.Client(auth=auth, trust_env=False) as client:
        assert client.get(url).status_code == 200
    assert world.imburse.statistics.tokens_refused == 0


# What the doors refuse


def test_each_refusal_is_told_by_its_code(world: World) -> None:
    def code(source: Source, credential: str = CREDENTIAL, count: int = 1) -> tuple[str, int]:
        with pytest.raises(VendingFailed) as caught:
            source.tokens(credential, count)
        assert caught.value.request_id
        return caught.value.code, caught.value.status

    assert code(world.source(role="stranger")) == ("not_authorized", 403)
    assert code(world.source("invoke"), count=11) == ("not_authorized", 403)
    assert code(world.source(), count=501) == ("invalid_request", 400)
    wrong_key = boto3.Session("orders", "guessed", region_name=REGION)
    assert code(ApiSource(world.stack.api_url, session=wrong_key)) == ("refused_by_aws", 403)
    wrong_path = ApiSource(world.stack.api_url + "/prod", session=wrong_key)
    assert code(wrong_path) == ("refused_by_aws", 403)


def test_an_operator_sees_what_a_key_reaches(world: World) -> None:
    source = world.source(role="operators")
    assert isinstance(source, ApiSource)
    assert [tenant["tenantId"] for tenant in source.identity(CREDENTIAL)["tenants"]] == ["tenant-a"]


# Redirects over real connections


class _Server(ThreadingHTTPServer):
    """Answers 200 and notes the headers, or a redirect while `location` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.location: str | None = None
        self.seen: list[dict[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        location, self.server.location = self.server.location, None
        self.send_response(307 if location else 200)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def server() -> Iterator[_Server]:
    with _Server() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield one
        finally:
            one.shutdown()
            thread.join()


def by_requests(url: str, source: Source) -> int:
    return requests.get(url, auth=VendedAuth(CREDENTIAL, source), timeout=10).status_code


def by_httpx(url: str, source: Source) -> int:
    with httpx.Client(auth=HttpxVendedAuth(CREDENTIAL, source), follow_redirects=True, trust_env=False) as client:
        return client.get(url).status_code


def by_async_httpx(url: str, source: Source) -> int:
    async def get() -> int:
        auth = HttpxVendedAuth(CREDENTIAL, source)
        async with httpx.AsyncClient(auth=auth, follow_redirects=True, trust_env=False) as client:
            return (await client.get(url)).status_code

    return anyio.run(get)


@pytest.mark.parametrize("get", [by_requests, by_httpx, by_async_httpx])
def test_a_redirect_to_another_host_takes_nothing_along(get: Callable[[str, Source], int]) -> None:
    with server() as imburse, server() as other:
        imburse.location = other.url + "/v1"
        try:
            assert get(imburse.url + "/v1", CountingSource(baseUrl=imburse.url)) == 200
        except Misdirected:
            assert get is not by_requests
        assert imburse.seen[0]["authorization"] == "Bearer token-1"
        taken = {name for seen in other.seen for name in seen}
        assert not taken & {"authorization", "x-account-id", "x-tenant-id"}


def test_a_redirect_within_the_host_gets_a_token_of_its_own() -> None:
    with server() as imburse:
        imburse.location = "/v2"
        assert by_requests(imburse.url + "/v1", CountingSource(baseUrl=imburse.url)) == 200
        assert [seen["authorization"] for seen in imburse.seen] == ["Bearer token-1", "Bearer token-2"]
