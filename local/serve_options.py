"""What `python -m local serve` is told: options, or the variables of the same name that `make serve` passes on."""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imburse_auth.hosts import normalise_base_url
from local.api_caller import LocalCaller
from local.serve_files import check_policy, read_callers, read_secrets
from local.stack import ACCOUNT_ID, PROJECT, StackSettings

_OPTIONS = {
    "IMBURSE_URL": "base URL of the Imburse to use; without it an emulator is started",
    "SECRETS": "file: a JSON object, secret name to the credential's JSON object",
    "CALLERS": 'file: a JSON object, access key id to {"secretAccessKey", "arn"}',
    "POLICY": "file: a Cedar policy in place of the stage's own",
    "API_PORT": "port of the API (3000)",
    "LAMBDA_PORT": "port of the Lambda API (3001)",
    "LOG_FILE": "file that gets what the functions write (.local/functions.log)",
    "CONCURRENCY": "processes a function may have at once (8)",
}

_DASHBOARD = {
    "LOG_FILE": ("--log", ".local/functions.log", "the log that `serve` wrote"),
    "DASHBOARD": ("--out", ".local/dashboard.html", "the page to write"),
}


class OptionError(Exception):
    """An option cannot be used; the message is one line that names it and the rule."""


@dataclass(frozen=True)
class ServeOptions:
    """The settings, and the callers whose keys were made for this run and may be shown."""

    settings: StackSettings
    made_callers: Mapping[str, LocalCaller]


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m local`."""
    root = argparse.ArgumentParser(prog="python -m local", description="The whole system on one machine.")
    commands = root.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run it until interrupted")
    for name, text in _OPTIONS.items():
        option = "--" + name.lower().replace("_", "-")
        serve.add_argument(option, dest=name, metavar="VALUE", help=f"{text}; also the variable {name}")
    commands.add_parser("demo", help="run it, and show what it does")
    rotate = commands.add_parser("rotate", help="replace the key of a credential of the stack that `serve` runs")
    rotate.add_argument("credential", help="<environment>/<name>, like sandbox/tenant-a")
    dashboard = commands.add_parser("dashboard", help="draw the CloudWatch dashboard from what the functions measured")
    for name, (option, default, text) in _DASHBOARD.items():
        help_text = f"{text} ({default}); also the variable {name}"
        dashboard.add_argument(option, dest=name, metavar="FILE", help=help_text)
    return root


def read_options(given: Mapping[str, str | None], environ: Mapping[str, str]) -> ServeOptions:
    """Options win over variables, and an empty one counts as not given. Raises OptionError, FileError."""
    values = {name: given.get(name) or environ.get(name) or None for name in _OPTIONS}
    made_callers = {} if values["CALLERS"] else _made_callers()
    settings = StackSettings(
        secrets=read_secrets(Path(values["SECRETS"])) if values["SECRETS"] else _made_secrets(),
        callers=read_callers(Path(values["CALLERS"])) if values["CALLERS"] else made_callers,
        imburse_url=_base_url(values["IMBURSE_URL"]) if values["IMBURSE_URL"] else None,
        policy=check_policy(Path(values["POLICY"])) if values["POLICY"] else None,
        api_port=_number("API_PORT", values["API_PORT"] or "3000", 65_535),
        lambda_port=_number("LAMBDA_PORT", values["LAMBDA_PORT"] or "3001", 65_535),
        concurrency=_number("CONCURRENCY", values["CONCURRENCY"] or "8", 1000, least=1),
        log_file=Path(values["LOG_FILE"] or PROJECT / ".local/functions.log"),
    )
    return ServeOptions(settings, made_callers)


def read_dashboard_options(given: Mapping[str, str | None], environ: Mapping[str, str]) -> tuple[Path, Path]:
    """The log to read and the page to write. Options win over variables, and an empty one counts as not given."""
    log, out = (
        Path(given.get(name) or environ.get(name) or PROJECT / default) for name, (_, default, _) in _DASHBOARD.items()
    )
    return log, out


def _base_url(text: str) -> str:
    try:
        url = normalise_base_url(text)
    except ValueError as exc:
        raise OptionError(f"IMBURSE_URL: {exc}") from exc
    if "," in url:
        raise OptionError("IMBURSE_URL: must not hold a comma")
    return url


def _number(name: str, text: str, most: int, *, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise OptionError(f"{name}: must be a number from {least} to {most}")
    return int(text)


def _made_secrets() -> dict[str, str]:
    """Two credentials to try, made anew at each start: a tenant's key and its account's."""
    account_id, tenant_id = str(uuid.uuid4()), str(uuid.uuid4())

    def credential(**more: str) -> str:
        private_key = base64.b64encode(secrets.token_bytes(32)).decode()
        return json.dumps({"publicKey": str(uuid.uuid4()), "privateKey": private_key, "accountId": account_id, **more})

    return {
        "imburse/sandbox/tenant-a": credential(tenantId=tenant_id),
        "imburse/sandbox/account": credential(),
    }


def _made_callers() -> dict[str, LocalCaller]:
    """The roles of the example policy, and one that it does not name."""
    roles = {"LOCALORDERS": "orders", "LOCALOPERATORS": "operators", "LOCALMARKETING": "marketing"}
    return {
        key_id: LocalCaller(key_id, secrets.token_urlsafe(30), f"arn:aws:iam::{ACCOUNT_ID}:role/{role}")
        for key_id, role in roles.items()
    }
