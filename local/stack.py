"""The whole system on one machine: moto, STS, the Imburse emulator, the Lambda host and the API front, put together.

The functions reach all of it the way they reach the real thing: AWS by the SDK's own variables (AWS_ENDPOINT_URL...), Imburse
by the template's ImburseHosts parameter.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from imburse_auth.credential import SECRET_PREFIX, CredentialId
from local.api_caller import LocalCaller
from local.api_front import api_front
from local.api_page import api_page
from local.embedded_aws import make_tables, moto_server, put_secrets
from local.function_log import FunctionLog
from local.guard import Guard
from local.imburse import Imburse
from local.imburse_errors import InvalidDocument
from local.imburse_keys import ImburseKey
from local.lambda_environment import InitError
from local.lambda_host import HostSettings, LambdaHost
from local.lambda_invoke import invoke_api
from local.lambda_types import LogLine
from local.lambda_variables import sealed_variables
from local.serving import base_url, bind, serving
from local.sts import sts
from local.template import Application, read_application
from local.template_source import load, parameter_values

PROJECT = Path(__file__).parents[1]
STACK_NAME = "imburse-vending"
STAGE = "dev"
REGION = "eu-west-1"
ACCOUNT_ID = "123456789012"


class FunctionStartError(Exception):
    """A function's code does not start; the message names the function and says why."""


@dataclass(frozen=True)
class StackSettings:
    """What a local stack is made of.

    `secrets` maps a secret's name to its text; the emulator knows the key of each that is a credential. `callers` maps an
    access key id to who signs with it, and may change while the stack runs. With `imburse_url` (a base URL) there is no
    emulator. `policy` is a Cedar file in place of the stage's own. A port of 0 is any free one. `log_file` gets what the
    functions write. `parameters` are the template's, in place of its defaults; `variables` are added to every function's.
    """

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    callers: Mapping[str, LocalCaller] = field(default_factory=dict)
    imburse_url: str | None = None
    policy: Path | None = None
    api_port: int = 0
    lambda_port: int = 0
    moto_port: int = 0
    imburse_port: int = 0
    concurrency: int = 8
    log_file: Path | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


class LocalStack:
    """An async context manager: entered, all of it answers and each function has started once; left, no process remains.

    Entering raises PortInUseError, TemplateError, MotoError or FunctionStartError.
    """

    api_url: str
    lambda_url: str
    moto_url: str
    sts_url: str
    imburse_url: str
    application: Application
    imburse: Imburse | None
    """The emulator itself, unless the stack faces another Imburse."""

    def __init__(self, settings: StackSettings) -> None:
        self._settings = settings
        self._exit = AsyncExitStack()

    def log_lines(self) -> list[LogLine]:
        """What the functions wrote so far, oldest first; from any thread."""
        return self._log.lines()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        api_listener = stack.enter_context(bind(settings.api_port))
        lambda_listener = stack.enter_context(bind(settings.lambda_port))
        self._log = FunctionLog(settings.log_file)
        stack.callback(self._log.close)
        guard = Guard()
        stack.callback(guard.close)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="imburse-vending-")))

        moto = moto_server(settings.moto_port, env=sealed_variables(REGION, scratch), cwd=scratch, guard=guard)
        self.moto_url = await stack.enter_async_context(moto)
        await asyncio.to_thread(put_secrets, settings.secrets, endpoint_url=self.moto_url, region=REGION)
        await self._start_imburse(stack)
        self.sts_url = await stack.enter_async_context(serving(sts(settings.callers, region=REGION), bind(0)))

        self.application = read_application(
            PROJECT / "template.yaml",
            {"Stage": STAGE, "ImburseHosts": _hosts(self.imburse_url, settings.secrets), **settings.parameters},
            stack_name=STACK_NAME,
            region=REGION,
            account_id=ACCOUNT_ID,
        )
        await asyncio.to_thread(make_tables, self.application.tables, endpoint_url=self.moto_url, region=REGION)
        host_settings = HostSettings(
            PROJECT / "functions",
            region=REGION,
            account_id=ACCOUNT_ID,
            layers={"/opt/access_policy": _policy_folder(settings.policy, scratch)},
            variables={
                "AWS_ENDPOINT_URL": self.moto_url,
                "AWS_ENDPOINT_URL_LAMBDA": base_url(lambda_listener),
                "STS_ENDPOINTS": f"{REGION}={self.sts_url}",
                **settings.variables,
            },
            concurrency=settings.concurrency,
        )
        host = LambdaHost(self.application.functions.values(), host_settings, guard=guard, log=self._log)
        await stack.enter_async_context(host)
        await _warm(host, self.application)
        front = api_front(
            self.application.routes,
            host.invoke,
            settings.callers,
            account_id=ACCOUNT_ID,
            region=REGION,
            stage=STAGE,
            pages=api_page(self.application.routes),
        )
        self.lambda_url = await stack.enter_async_context(
            serving(invoke_api(host, self.application.schedules), lambda_listener)
        )
        self.api_url = await stack.enter_async_context(serving(front, api_listener))

    async def _start_imburse(self, stack: AsyncExitStack) -> None:
        if self._settings.imburse_url is not None:
            self.imburse, self.imburse_url = None, self._settings.imburse_url
            return
        self.imburse = Imburse(_keys(self._settings.secrets.values()))
        listener = bind(self._settings.imburse_port)
        self.imburse_url = await stack.enter_async_context(serving(self.imburse.app(), listener))


async def _warm(host: LambdaHost, application: Application) -> None:
    """Starts each function once, so that code or a policy that cannot run is found before anybody calls."""

    async def warm(name: str, alias: str | None) -> None:
        try:
            await host.warm(name, alias)
        except InitError as exc:
            raise FunctionStartError(f"{name} does not start: {exc}") from exc

    functions = application.functions.values()
    results = await asyncio.gather(
        *(warm(spec.name, next(iter(spec.aliases), None)) for spec in functions), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _keys(texts: Iterable[str]) -> list[ImburseKey]:
    """The keys in those secrets that are credentials; what else a secret holds is for the functions to judge."""
    keys = []
    for text in texts:
        try:
            keys.append(ImburseKey.from_json(json.loads(text)))
        except (ValueError, AttributeError, RecursionError, InvalidDocument):
            continue
    return keys


def _hosts(imburse_url: str, secrets: Mapping[str, str]) -> str:
    """The ImburseHosts parameter: every environment of the template's default and of the secrets, all at `imburse_url`."""
    default = str(parameter_values(load(PROJECT / "template.yaml"), {})["ImburseHosts"])
    environments = dict.fromkeys(entry.partition("=")[0].strip() for entry in default.split(","))
    for name in secrets:
        try:
            environments[CredentialId.parse(name.removeprefix(SECRET_PREFIX)).environment] = None
        except ValueError:
            continue  # not a credential's name, so no caller can ask for it
    return ",".join(f"{environment}={imburse_url}" for environment in environments)


def _policy_folder(policy: Path | None, scratch: Path) -> Path:
    """What is mounted as the access_policy layer: its own content, or the given policy beside the layer's schema."""
    layer = PROJECT / "layers/access_policy/access_policy"
    if policy is None:
        return layer
    folder = scratch / "access_policy"
    folder.mkdir()
    shutil.copyfile(policy, folder / f"{STAGE}.cedar")
    shutil.copyfile(layer / "schema.cedarschema", folder / "schema.cedarschema")
    return folder
