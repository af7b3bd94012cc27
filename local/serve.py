"""`python -m local serve`: the local stack, up until interrupted."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator

from imburse_auth.credential import SECRET_PREFIX
from local.api_caller import LocalCaller
from local.embedded_aws import MotoError
from local.serve_options import ServeOptions
from local.serving import PortInUseError
from local.stack import ACCOUNT_ID, PROJECT, REGION, STACK_NAME, FunctionStartError, LocalStack
from local.template import TemplateError

SHELL_VARIABLES = PROJECT / ".local/env"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(options: ServeOptions) -> int:
    """Runs the stack until SIGINT, SIGTERM or SIGHUP. Answers the exit status: 0, or 1 when it could not start."""
    return asyncio.run(_serve(options))


async def _serve(options: ServeOptions) -> int:
    task = asyncio.create_task(_stay(options))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in _SIGNALS:  # once only: impatience must not interrupt the tidying up
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except (PortInUseError, MotoError, TemplateError, FunctionStartError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


async def _stay(options: ServeOptions) -> None:
    async with LocalStack(options.settings) as stack:
        if options.made_callers:
            _write_shell_variables(stack, next(iter(options.made_callers.values())))
        print("\n".join(_welcome(stack, options)), file=sys.stderr, flush=True)
        # The one line on standard output: programs wait for it.
        print(f"READY api={stack.api_url} lambda={stack.lambda_url}", flush=True)
        await asyncio.Event().wait()


def _write_shell_variables(stack: LocalStack, caller: LocalCaller) -> None:
    """Makes a shell that sources it this caller, against this stack: the same code and commands then work here and on AWS."""
    vend = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{stack.application.functions['VendFunction'].name}"
    variables = {
        "AWS_ACCESS_KEY_ID": caller.access_key_id,
        "AWS_SECRET_ACCESS_KEY": caller.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_DYNAMODB": stack.moto_url,
        "AWS_ENDPOINT_URL_LAMBDA": stack.lambda_url,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": stack.moto_url,
        "AWS_ENDPOINT_URL_STS": stack.sts_url,
        "VENDING_API": stack.api_url,
        "VENDING_FUNCTION": f"{vend}:settlement-job",
        "VEND_FUNCTION_ARN": vend,
    }
    SHELL_VARIABLES.parent.mkdir(exist_ok=True)
    SHELL_VARIABLES.unlink(missing_ok=True)
    SHELL_VARIABLES.touch(mode=0o600)
    SHELL_VARIABLES.write_text("".join(f"export {name}={value}\n" for name, value in variables.items()))


def _welcome(stack: LocalStack, options: ServeOptions) -> Iterator[str]:
    """What can be called, for somebody who sees it for the first time."""
    callers = options.settings.callers
    yield ""
    yield f"API            {stack.api_url}   signed with SigV4, service execute-api"
    for route in stack.application.routes:
        yield f"  {route.method:<4} {route.path}"
    yield f"API page       {stack.api_url}/docs/   in a browser: read it, and vend from a form"
    yield f"Lambda         {stack.lambda_url}   for any AWS SDK or CLI, as its endpoint URL"
    for spec in stack.application.functions.values():
        yield f"  {spec.name}   aliases: {', '.join(sorted(spec.aliases))}"
    for schedule in stack.application.schedules:
        yield f"  POST {stack.lambda_url}/local/schedules/{schedule.name}   fires this schedule now"
    yield f"Imburse        {stack.imburse_url}   {'the emulator' if stack.imburse else 'not ours'}"
    yield f"AWS            {stack.moto_url}   moto: Secrets Manager, DynamoDB and the rest"
    yield f"AWS STS        {stack.sts_url}   knows the callers below, and says who signed"
    yield f"Secrets        {', '.join(options.settings.secrets) or 'none'}"
    yield f"Callers        {'' if callers else 'none'}".rstrip()
    for key_id, caller in callers.items():
        shown = f"   secret access key {caller.secret_access_key}" if key_id in options.made_callers else ""
        yield f"  {key_id:<16} {caller.arn}{shown}"
    yield f"Log            {options.settings.log_file}   what the functions write, audit records among it"
    yield ""
    names = (name.removeprefix(SECRET_PREFIX) for name in options.settings.secrets)
    yield from _examples(next(names, "sandbox/tenant-a"), next(iter(options.made_callers.values()), None))
    yield "Ctrl-C ends it."


def _examples(credential: str, caller: LocalCaller | None) -> Iterator[str]:
    if caller is not None:
        yield f"In another shell, `. {SHELL_VARIABLES.relative_to(PROJECT)}` makes you {caller.arn}, against this stack; then"
        yield "a token for a microservice, which is named by the role that signs:"
        yield (
            f"  .venv/bin/awscurl --service execute-api --region {REGION}"
            f" -X POST $VENDING_API/v1/credentials/{credential}/token"
        )
        yield "and one for a scheduled job, which is named by the alias it invokes:"
        yield (
            f"  .venv/bin/aws lambda invoke --function-name {STACK_NAME}-vend:settlement-job"
            " --payload fileb://events/vend_single.json /dev/stdout | cat"
        )
        yield ""
