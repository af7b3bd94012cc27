"""A token in the forms that other programs read. Each quotes by its own rules: an account id must not become a command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from imburse_vending.common import CommandError, ExitCode
from imburse_vending.door import checked_headers

if TYPE_CHECKING:
    from imburse_auth.client import Vended


class Form(StrEnum):
    """How `token` prints."""

    HEADERS = "headers"
    JSON = "json"
    EXPORT = "export"
    CURL = "curl"


def written(tokens: Sequence[Vended], form: Form, *, many: bool) -> str:
    """What goes to standard output, whole lines. Raises CommandError for headers that no client may send."""
    headers = [checked_headers(vended) for vended in tokens]
    if form is Form.JSON:
        documents = [_document(vended) for vended in tokens]
        return json.dumps(documents if many else documents[0], indent=2) + "\n"
    if form is Form.HEADERS:
        return "\n".join("".join(f"{name}: {value}\n" for name, value in one.items()) for one in headers)
    if len(tokens) != 1:
        raise CommandError(f"--as {form.value} is for one token", next_step="--as json", code=ExitCode.USAGE)
    return _export(tokens[0], headers[0]) if form is Form.EXPORT else _curl(headers[0])


def _document(vended: Vended) -> dict[str, Any]:
    return {
        "credential": vended.credential,
        "accessToken": vended.access_token,
        "expires": vended.expires,
        "baseUrl": vended.base_url,
        "headers": vended.headers,
    }


def _export(vended: Vended, headers: dict[str, str]) -> str:
    """`eval "$(...)"`: IMBURSE_AUTHORIZATION, IMBURSE_ACCOUNT_ID, IMBURSE_TENANT_ID, IMBURSE_BASE_URL, IMBURSE_EXPIRES."""
    variables = {_variable(name): value for name, value in headers.items()}
    variables |= {"IMBURSE_BASE_URL": vended.base_url, "IMBURSE_EXPIRES": str(vended.expires)}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _variable(header: str) -> str:
    return "IMBURSE_" + header.lower().removeprefix("x-").upper().replace("-", "_")


def _curl(headers: dict[str, str]) -> str:
    """A config file, for `curl -K`: in its quotes, only the backslash and the quote mean something."""
    quoted = (f"{name}: {value}".replace("\\", "\\\\").replace('"', '\\"') for name, value in headers.items())
    return "".join(f'header = "{line}"\n' for line in quoted)
