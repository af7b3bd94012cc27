"""The Lambda host with tiny handlers of its own, called by real clients: boto3, the AWS CLI and plain HTTP."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions
import pytest
import requests
from botocore.config import Config

from local.guard import Guard
from local.lambda_host import HostSettings, LambdaHost
from local.lambda_invoke import invoke_api
from local.lambda_types import LogLine
from local.serving import bind, in_background, serving
from local.template import FunctionSpec, ScheduleSpec
from tests.processes import is_running, wait_until

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

REGION, ACCOUNT = "eu-west-1", "123456789012"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"

HANDLERS = {
    "echo": """
        import os, sys
        def handler(event, context):
            print("said on stdout")
            print("said on stderr", file=sys.stderr)
            client = context.client_context
            return {"event": event, "pid": os.getpid(), "arn": context.invoked_function_arn,
                    "version": context.function_version, "id": context.aws_request_id,
                    "left": context.get_remaining_time_in_millis(), "custom": client.custom if client else None}
    """,
    "variables": """
        import os
        def handler(event, context):
            return dict(os.environ)
    """,
    "failing": """
        class Refused(Exception): ...
        def handler(event, context):
            raise Refused("a reason " * event.get("words", 1))
    """,
    "crashing": """
        import os, sys
        def handler(event, context):
            if event.get("how") == "os":
                os._exit(3)
            if event.get("how") == "sys":
                sys.exit(4)
            return "well"
    """,
    "sleeping": """
        import time
        def handler(event, context):
            time.sleep(event.get("seconds", 0))
            return "slept"
    """,
    "unimportable": """
        import there_is_no_such_module
    """,
    "exiting": """
        import os
        os._exit(7)
    """,
    "large": """
        def handler(event, context):
            return "x" * event["size"]
    """,
    "numbered": """
        import os, time
        def handler(event, context):
            started = time.monotonic()
            time.sleep(0.1)
            return {"n": event["n"], "pid": os.getpid(), "started": started}
    """,
}


@dataclass(frozen=True)
class Running:
    url: str
    log: list[LogLine]

    @property
    def client(self) -> LambdaClient:
        return boto3.client(
            "lambda",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"max_attempts": 0}, max_pool_connections=50, proxies={}),
        )

    def invoke(self, name: str, event: Any = None, **more: Any) -> tuple[Any, dict[str, Any]]:
        """The parsed payload and the whole response."""
        response = self.client.invoke(FunctionName=name, Payload=json.dumps(event or {}), **more)
        payload = response["Payload"].read()
        return (json.loads(payload) if payload else None), dict(response)

    def post(self, name: str, body: bytes, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.url}/2015-03-31/functions/{name}/invocations", data=body, headers=headers, timeout=20
        )


def spec(module: str, timeout_seconds: int = 10) -> FunctionSpec:
    logical_id = f"{module.capitalize()}Function"
    environment = {"GREETING": "hello", "CONTENT": "/opt/content/rules.txt", "OTHER": "/opt/contents"}
    return FunctionSpec(
        logical_id, f"stack-{module}", f"{module}.handler", timeout_seconds, 256, environment, ("live", "job")
    )


@pytest.fixture(scope="module")
def task_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    for name, text in HANDLERS.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return folder


def running_host(task_root: Path) -> Any:
    @asynccontextmanager
    async def running() -> AsyncIterator[Running]:
        log: list[LogLine] = []
        guard = Guard()
        specs = [spec(name, 1 if name == "sleeping" else 10) for name in HANDLERS]
        settings = HostSettings(
            task_root,
            layers={"/opt/content": task_root / "layer"},
            variables={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            concurrency=4,
        )
        schedules = [ScheduleSpec("daily", "EchoFunction", "job", '{"why": "daily"}')]
        host = LambdaHost(specs, settings, guard=guard, log=log.append)
        async with host, serving(invoke_api(host, schedules), bind(0)) as url:
            yield Running(url, log)
        guard.close()

    return running()


@pytest.fixture(scope="module")
def host(task_root: Path) -> Iterator[Running]:
    with in_background(running_host(task_root)) as running:
        yield running


def test_an_event_goes_in_and_an_answer_comes_out(host: Running) -> None:
    answer, response = host.invoke("stack-echo", {"word": "grüße"}, Qualifier="live")
    assert answer["event"] == {"word": "grüße"}
    assert response["StatusCode"] == 200
    assert "FunctionError" not in response
    assert response["ExecutedVersion"] == "1"
    assert response["ResponseMetadata"]["RequestId"] == answer["id"]
    assert 0 < answer["left"] <= 10_000


def test_no_payload_at_all_is_an_empty_event(host: Running) -> None:
    response = host.client.invoke(FunctionName="stack-echo")
    assert json.loads(response["Payload"].read())["event"] == {}


@pytest.mark.parametrize(
    ("name", "qualifier", "arn", "version"),
    [
        ("stack-echo", None, "stack-echo", "$LATEST"),
        ("stack-echo", "$LATEST", "stack-echo:$LATEST", "$LATEST"),
        ("stack-echo", "live", "stack-echo:live", "1"),
        ("stack-echo", "1", "stack-echo:1", "1"),
        ("stack-echo:job", None, "stack-echo:job", "1"),
        ("stack-echo:job", "job", "stack-echo:job", "1"),
        (f"{ARN}stack-echo", "job", "stack-echo:job", "1"),
        (f"{ARN}stack-echo:job", None, "stack-echo:job", "1"),
        (f"{ACCOUNT}:function:stack-echo", "job", "stack-echo:job", "1"),
        ("EchoFunction", "job", "stack-echo:job", "1"),
        ("echo", "job", "stack-echo:job", "1"),
    ],
)
def test_the_context_shows_the_alias_that_was_invoked(
    host: Running, name: str, qualifier: str | None, arn: str, version: str
) -> None:
    answer, response = host.invoke(name, **({"Qualifier": qualifier} if qualifier else {}))
    assert (answer["arn"], answer["version"]) == (ARN + arn, version)
    assert response["ExecutedVersion"] == version


@pytest.mark.parametrize(
    ("name", "qualifier"),
    [
        ("nobody", None),
        ("stack-echo", "nobody"),
        ("stack-echo:nobody", None),
        (f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:stack-echo", None),
        ("999999999999:function:stack-echo", None),
    ],
)
def test_an_unknown_function_or_alias_is_not_found(host: Running, name: str, qualifier: str | None) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        host.invoke(name, **({"Qualifier": qualifier} if qualifier else {}))
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_two_different_qualifiers_are_refused(host: Running) -> None:
    with pytest.raises(host.client.exceptions.InvalidParameterValueException):
        host.invoke("stack-echo:job", Qualifier="live")


def test_an_exception_of_the_handler_is_a_function_error(host: Running) -> None:
    answer, response = host.invoke("failing")
    assert response["FunctionError"] == "Unhandled"
    assert (answer["errorType"], answer["errorMessage"]) == ("Refused", "a reason ")
    assert response["StatusCode"] == 200


def test_an_error_with_a_very_long_message_arrives_whole(host: Running) -> None:
    answer, _ = host.invoke("failing", {"words": 50_000})
    assert len(answer["errorMessage"]) == 450_000


@pytest.mark.parametrize(("how", "status"), [("os", 3), ("sys", 4)])
def test_an_environment_that_exits_is_reported_and_replaced(host: Running, how: str, status: int) -> None:
    answer, response = host.invoke("crashing", {"how": how})
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].endswith(f"Error: Runtime exited with error: exit status {status}")
    assert host.invoke("crashing")[0] == "well"


def test_a_function_that_takes_too_long_is_killed_and_replaced(host: Running) -> None:
    started = time.monotonic()
    answer, response = host.invoke("sleeping", {"seconds": 300})
    assert time.monotonic() - started < 30  # killed after its 1 s, or never: the client would have waited for 60
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Sandbox.Timedout"
    request_id = response["ResponseMetadata"]["RequestId"]
    assert answer["errorMessage"] == f"RequestId: {request_id} Error: Task timed out after 1.00 seconds"
    assert host.invoke("sleeping")[0] == "slept"


def test_code_that_cannot_be_imported_is_reported_as_the_runtime_reports_it(host: Running) -> None:
    answer, response = host.invoke("unimportable")
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Runtime.ImportModuleError"
    assert "there_is_no_such_module" in answer["errorMessage"]


def test_code_that_exits_during_init_is_an_exit_error(host: Running) -> None:
    answer, response = host.invoke("exiting")
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Runtime.ExitError"


def test_a_killed_environment_is_replaced(host: Running) -> None:
    pid = host.invoke("echo")[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the killed process is gone")
    answer, response = host.invoke("echo")
    assert "FunctionError" not in response
    assert answer["pid"] != pid


def test_requests_beyond_the_limit_wait_their_turn(host: Running) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = [answer for answer, _ in pool.map(lambda n: host.invoke("numbered", {"n": n}), range(12))]
    assert sorted(answer["n"] for answer in answers) == list(range(12))
    assert len({answer["pid"] for answer in answers}) <= 4


def test_200_requests_at_once_are_all_answered(host: Running) -> None:
    client = host.client

    def invoke(number: int) -> int:
        response = client.invoke(FunctionName="echo", Payload=json.dumps(number))
        return int(json.loads(response["Payload"].read())["event"])

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(invoke, range(200))) == list(range(200))


def test_an_event_invocation_is_accepted_and_runs(host: Running) -> None:
    before = len(host.log)
    payload, response = host.invoke("variables", InvocationType="Event")
    assert (payload, response["StatusCode"]) == (None, 202)
    host.invoke("failing", InvocationType="Event")
    wait_until(
        lambda: any(line.function == "stack-failing" and "Refused" in line.text for line in host.log[before:]),
        "the event invocation left its log line",
    )


def test_a_dry_run_runs_nothing(host: Running) -> None:
    before = len(host.log)
    assert host.invoke("echo", InvocationType="DryRun")[1]["StatusCode"] == 204
    assert len(host.log) == before


@pytest.mark.parametrize(
    "body", [b"{", b"nonsense", b"\xff\xfe", b'{"a": NaN}', b"[" * 5000 + b"]" * 5000, b"[" * 200_000, b'"' * 1001]
)
def test_a_payload_that_is_not_json_is_refused(host: Running, body: bytes) -> None:
    response = host.post("echo", body)
    assert response.status_code == 400
    assert response.headers["X-Amzn-ErrorType"] == "InvalidRequestContentException"
    assert response.json()["Type"] == "User"


def test_many_brackets_that_are_not_deep_are_accepted(host: Running) -> None:
    body = json.dumps([[], "[" * 5000, *([{}] * 2000)]).encode()
    assert host.post("echo", body).status_code == 200


@pytest.mark.parametrize(("kind", "size"), [("RequestResponse", 10_000_000), ("Event", 1_100_000)])
def test_a_payload_over_the_limit_is_too_large(host: Running, kind: str, size: int) -> None:
    with pytest.raises(host.client.exceptions.RequestTooLargeException) as caught:
        host.client.invoke(FunctionName="echo", InvocationType=kind, Payload=json.dumps("x" * size))  # type: ignore[arg-type]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_five_megabytes_go_both_ways(host: Running) -> None:
    assert len(host.invoke("large", {"size": 5_000_000, "padding": "x" * 5_000_000})[0]) == 5_000_000


def test_an_answer_over_the_limit_is_a_function_error(host: Running) -> None:
    answer, response = host.invoke("large", {"size": 7_000_000})
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Function.ResponseSizeTooLarge"
    assert len(host.invoke("large", {"size": 10})[0]) == 10


def test_a_client_context_reaches_the_function(host: Running) -> None:
    context = base64.b64encode(json.dumps({"custom": {"note": "zwei\nZeilen ü"}}, indent=1).encode()).decode()
    assert host.invoke("echo", ClientContext=context)[0]["custom"] == {"note": "zwei\nZeilen ü"}


def test_a_client_context_that_is_not_json_is_refused(host: Running) -> None:
    with pytest.raises(host.client.exceptions.InvalidRequestContentException):
        host.invoke("echo", ClientContext=base64.b64encode(b"{").decode())


def test_the_log_is_captured_by_line_and_given_as_tail(host: Running) -> None:
    before = len(host.log)
    _, response = host.invoke("echo", LogType="Tail")
    lines = [line for line in host.log[before:] if line.function == "stack-echo"]
    assert [line.text for line in lines] == ["said on stdout", "said on stderr"]
    assert (
        base64.b64decode(response["LogResult"])
        .decode()
        .startswith("said on stdout\nsaid on stderr\nREPORT RequestId: ")
    )


def test_a_function_sees_lambdas_variables_and_nothing_of_ours(host: Running, task_root: Path) -> None:
    variables, _ = host.invoke("variables", Qualifier="live")
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == "stack-variables"
    assert variables["AWS_LAMBDA_FUNCTION_VERSION"] == "1"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert variables["LAMBDA_TASK_ROOT"] == str(task_root)
    assert variables["GREETING"] == "hello"
    assert variables["CONTENT"] == f"{task_root}/layer/rules.txt"
    assert variables["OTHER"] == "/opt/contents"
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert not {"AWS_PROFILE", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST"} & set(
        variables
    )
    assert variables["HOME"] != os.environ.get("HOME")


def test_names_can_be_discovered(host: Running) -> None:
    client = host.client
    names = [function["FunctionName"] for function in client.list_functions()["Functions"]]
    assert "stack-echo" in names
    assert client.get_function(FunctionName="echo")["Configuration"]["Handler"] == "echo.handler"
    aliases = client.list_aliases(FunctionName="stack-echo")["Aliases"]
    assert [(alias["Name"], alias["AliasArn"]) for alias in aliases] == [
        ("job", f"{ARN}stack-echo:job"),
        ("live", f"{ARN}stack-echo:live"),
    ]


def test_a_schedule_is_fired_by_hand(host: Running) -> None:
    answer = requests.post(f"{host.url}/local/schedules/daily", timeout=10).json()
    assert (answer["event"], answer["arn"]) == ({"why": "daily"}, f"{ARN}stack-echo:job")
    assert requests.post(f"{host.url}/local/schedules/nightly", timeout=10).status_code == 404


def test_a_web_page_cannot_invoke(host: Running) -> None:
    assert host.post("echo", b"{}", Origin="https://example.com").status_code == 403


def test_the_aws_cli_invokes(host: Running, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [str(Path(sys.executable).with_name("aws")), "lambda", "invoke", "--endpoint-url", host.url]
    command += ["--region", REGION]
    command += ["--function-name", "stack-echo:job"]
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_CONFIG_FILE": os.devnull}
    done = subprocess.run([*command, "--payload", '{"from": "cli"}', str(out)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ExecutedVersion"] == "1"
    assert json.loads(out.read_text())["event"] == {"from": "cli"}


def test_no_process_is_left_when_the_host_is_left(task_root: Path) -> None:
    with in_background(running_host(task_root)) as running:
        pids = [running.invoke("echo", Qualifier=qualifier)[0]["pid"] for qualifier in ("live", "$LATEST")]
        running.invoke("sleeping", {"seconds": 1}, InvocationType="Event")
        assert all(map(is_running, pids))
    assert not any(map(is_running, pids))


def test_no_process_is_left_when_the_host_is_killed(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(
        "import os\ndef handler(event, context):\n    print('pid', os.getpid())\n    while True:\n        pass\n"
    )
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from local.guard import Guard
        from local.lambda_host import HostSettings, LambdaHost
        from local.template import FunctionSpec

        async def main():
            spec = FunctionSpec("StuckFunction", "stuck", "stuck.handler", 60, 128, {}, ())
            settings = HostSettings(Path(sys.argv[1]))
            async with LambdaHost([spec], settings, guard=Guard(), log=lambda line: print(line.text, flush=True)) as host:
                await host.invoke("stuck", None, b"{}")

        asyncio.run(main())
    """)
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().removeprefix("pid "))
        parent.kill()
    wait_until(lambda: not is_running(pid), "the function's process is gone")
