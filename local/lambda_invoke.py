"""The Lambda service's HTTP API, as any AWS SDK or the AWS CLI calls it (`--endpoint-url`), and the hand-fired schedules.

Source: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html and its neighbours. IAM is not played here: whoever
reaches this port may invoke any alias, so the port is open to this machine only, and closed to web pages.
"""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from local.lambda_host import InvokeResult, LambdaHost
from local.lambda_names import InvalidReferenceError, UnknownFunction
from local.lambda_payload import InvalidContentError, check_payload, client_context
from local.lambda_types import LATEST, MAX_PAYLOAD_BYTES
from local.template import PUBLISHED_VERSION, FunctionSpec, ScheduleSpec

_MAX_EVENT_BYTES = 1024 * 1024  # an asynchronous invocation may be 1 MB


def invoke_api(host: LambdaHost, schedules: Iterable[ScheduleSpec]) -> web.Application:
    """The application; it needs `host` to be entered."""
    app = web.Application(client_max_size=MAX_PAYLOAD_BYTES, middlewares=[_errors])
    api = _InvokeApi(host, schedules)
    app.add_routes(
        [
            web.post("/2015-03-31/functions/{name}/invocations", api.invoke),
            web.get("/2015-03-31/functions", api.list_functions),
            web.get("/2015-03-31/functions/", api.list_functions),
            web.get("/2015-03-31/functions/{name}", api.get_function),
            web.get("/2015-03-31/functions/{name}/configuration", api.get_configuration),
            web.get("/2015-03-31/functions/{name}/aliases", api.list_aliases),
            web.post("/local/schedules/{name}", api.fire),
        ]
    )
    app.on_cleanup.append(api.close)
    return app


class _InvokeApi:
    def __init__(self, host: LambdaHost, schedules: Iterable[ScheduleSpec]) -> None:
        self._host = host
        self._directory = host.directory
        self._schedules = {schedule.name: schedule for schedule in schedules}
        self._events: set[asyncio.Task[InvokeResult]] = set()

    async def invoke(self, request: web.Request) -> web.Response:
        target = self._directory.find(request.match_info["name"], request.query.get("Qualifier"))
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind not in {"RequestResponse", "Event", "DryRun"}:
            return _error(400, "InvalidParameterValueException", f"Invalid invocation type: {kind!r}")
        limit = _MAX_EVENT_BYTES if kind == "Event" else MAX_PAYLOAD_BYTES
        if (request.content_length or 0) > limit:
            return _too_large(limit)
        payload = await request.read()
        if len(payload) > limit:
            return _too_large(limit)
        check_payload(payload)
        context = client_context(request.headers.get("X-Amz-Client-Context"))
        request_id = str(uuid.uuid4())
        headers = {"X-Amzn-RequestId": request_id}
        if kind == "DryRun":
            return web.Response(status=204, headers=headers)
        run = self._host.run(
            target, payload, request_id, client_context=context, trace_id=request.headers.get("X-Amzn-Trace-Id")
        )
        if kind == "Event":
            task = asyncio.create_task(run)
            self._events.add(task)
            task.add_done_callback(self._events.discard)
            return web.Response(status=202, headers=headers)
        result = await run
        if request.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(result.log_tail.encode()).decode()
        return _answer(result, headers)

    async def fire(self, request: web.Request) -> web.Response:
        """POST /local/schedules/{name}: runs the schedule's function now, with the schedule's input, and answers its result."""
        schedule = self._schedules.get(request.match_info["name"])
        if schedule is None:
            known = ", ".join(sorted(self._schedules)) or "none"
            return _error(404, "ResourceNotFoundException", f"No such schedule; there is: {known}")
        result = await self._host.invoke(schedule.function, schedule.alias, schedule.input.encode())
        return _answer(result, {"X-Amzn-RequestId": result.request_id})

    async def list_functions(self, request: web.Request) -> web.Response:  # noqa: ARG002
        functions = [self._configuration(spec, LATEST) for spec in self._directory.functions]
        return web.json_response({"Functions": functions})

    async def get_function(self, request: web.Request) -> web.Response:
        return web.json_response({"Configuration": self._asked(request), "Tags": {}})

    async def get_configuration(self, request: web.Request) -> web.Response:
        return web.json_response(self._asked(request))

    async def list_aliases(self, request: web.Request) -> web.Response:
        spec = self._directory.find(request.match_info["name"]).spec
        return web.json_response(
            {
                "Aliases": [
                    {
                        "AliasArn": self._directory.arn(f"{spec.name}:{alias}"),
                        "Name": alias,
                        "FunctionVersion": PUBLISHED_VERSION,
                        "Description": "",
                    }
                    for alias in sorted(spec.aliases)
                ]
            }
        )

    async def close(self, app: web.Application) -> None:  # noqa: ARG002
        for task in self._events:
            task.cancel()
        await asyncio.gather(*self._events, return_exceptions=True)

    def _asked(self, request: web.Request) -> dict[str, Any]:
        target = self._directory.find(request.match_info["name"], request.query.get("Qualifier"))
        return {**self._configuration(target.spec, target.version), "FunctionArn": target.arn}

    def _configuration(self, spec: FunctionSpec, version: str) -> dict[str, Any]:
        return {
            "FunctionName": spec.name,
            "FunctionArn": self._directory.arn(spec.name),
            "Handler": spec.handler,
            "Timeout": spec.timeout_seconds,
            "MemorySize": spec.memory_mb,
            "Environment": {"Variables": dict(spec.environment)},
            "Version": version,
            "State": "Active",
            "PackageType": "Zip",
        }


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answers what is refused as Lambda does: the error's name in a header, {"Type", "Message"} in the body."""
    if "Origin" in request.headers:  # only browsers send it: a page that happens to be open must not fetch tokens
        return _error(403, "AccessDeniedException", "Requests from web pages are not accepted")
    try:
        return await handler(request)
    except UnknownFunction as exc:
        return _error(404, "ResourceNotFoundException", str(exc))
    except InvalidReferenceError as exc:
        return _error(400, "InvalidParameterValueException", str(exc))
    except InvalidContentError as exc:
        return _error(400, "InvalidRequestContentException", str(exc))
    except web.HTTPRequestEntityTooLarge:
        return _too_large(MAX_PAYLOAD_BYTES)
    except web.HTTPException as exc:
        return _error(exc.status, "UnknownOperationException", f"{request.method} {request.path}: {exc.reason}")


def _answer(result: InvokeResult, headers: dict[str, str]) -> web.Response:
    headers["X-Amz-Executed-Version"] = result.executed_version
    if result.function_error is not None:
        headers["X-Amz-Function-Error"] = result.function_error
    return web.Response(body=result.payload, content_type="application/json", headers=headers)


def _too_large(limit: int) -> web.Response:
    message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    return _error(413, "RequestTooLargeException", message)


def _error(status: int, name: str, message: str) -> web.Response:
    headers = {"X-Amzn-ErrorType": name, "X-Amzn-RequestId": str(uuid.uuid4())}
    return web.json_response({"Type": "User", "Message": message}, status=status, headers=headers)
