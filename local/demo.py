"""``python -m local demo``: the local stack starts, and a story a newcomer can follow is told on it."""

from __future__ import annotations

import io
import secrets
import sys
import time
from pathlib import Path

from rich.console import Console

from local.api_caller import LocalCaller
from local.demo_clients import Signed, lambda_client, secrets_client
from local.demo_outage import Outage
from local.demo_story import Scene, Story
from local.demo_voice import StepFailed, Voice
from local.serving import in_background
from local.stack import ACCOUNT_ID, REGION, LocalStack, StackSettings

ROLES = ("orders", "stranger")
"""The roles that the story signs as; dev.cedar has a line for the first and none for the second."""


def main(policy: Path | None = None, *, console: Console | None = None) -> int:
    """Start the stack, tell the story, stop the stack; answers the exit status: 0 only if each step did what it should.

    ``policy`` is a Cedar file in place of dev.cedar; ``console`` gets the story instead of standard output.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # An arrow that the terminal cannot show is no reason to fail.
    voice = Voice(console or Console())
    began = time.monotonic()
    voice.title(
        "Imburse token vending machine",
        "Callers name a credential and get an access token; the private key behind it they never see.",
        "On this machine run the real functions, moto as Secrets Manager and DynamoDB, and a strict emulator of Imburse.",
    )
    callers = {role: LocalCaller(role, secrets.token_urlsafe(30), _role_arn(role)) for role in ROLES}
    try:
        with in_background(LocalStack(StackSettings(callers=callers, policy=policy))) as stack:
            voice.started(time.monotonic() - began)
            scene = scene_of(stack, callers)
            Story(scene, voice).tell()
            Outage(scene, voice).tell()
    except StepFailed as failed:
        voice.fails(str(failed))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as broken:  # noqa: BLE001  (whatever breaks, a newcomer is told at which step, without a traceback)
        voice.fails(f"{type(broken).__name__}: {broken}")
        return 1
    voice.ends(f"Every step did what it should, in {time.monotonic() - began:.1f} s.")
    voice.hint("`make serve` keeps the system up to play with; the README tells how to call it and how to deploy it.")
    return 0


def scene_of(stack: LocalStack, callers: dict[str, LocalCaller]) -> Scene:
    """Answer the clients of a running stack."""

    def sign_as(access_key_id: str, secret: str | None) -> Signed:
        return Signed(access_key_id, secret or callers[access_key_id].secret_access_key, REGION)

    return Scene(
        api_url=stack.api_url,
        imburse_url=stack.imburse_url,
        vend_client=lambda_client(stack.lambda_url, REGION),
        secrets=secrets_client(stack.moto_url, REGION),
        sign_as=sign_as,
        log_lines=lambda: [line.text for line in stack.log_lines()],
    )


def _role_arn(role: str) -> str:
    return f"arn:aws:iam::{ACCOUNT_ID}:role/{role}"
