"""Whether a pair is what put-key is told it is: Imburse is asked, where the vend function would ask it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from imburse_vending.common import CommandError, ExitCode, Place

if TYPE_CHECKING:
    from imburse_auth.api_key import ApiKey
    from imburse_auth.credential import CredentialId
    from imburse_auth.hosts import Hosts
    from imburse_auth.transport import Transport

CHECK_SECONDS = 30.0


def hosts(place: Place, credential: CredentialId, function: str, base_url: str | None) -> Hosts:
    """Where Imburse is: as was said, else as the function is told, which is what will be used. Raises CommandError."""
    from botocore.exceptions import ClientError

    from imburse_auth.hosts import Hosts

    try:
        if base_url is not None:
            return Hosts({credential.environment: base_url})
        settings = place.client("lambda").get_function_configuration(FunctionName=function)
        return Hosts.parse(settings.get("Environment", {}).get("Variables", {}).get("IMBURSE_HOSTS", ""))
    except ValueError as exc:
        source = "--base-url" if base_url is not None else f"IMBURSE_HOSTS of {function}"
        raise CommandError(f"{source}: {exc}", code=ExitCode.USAGE) from None
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code")
        raise CommandError(
            f"the settings of {function} cannot be read ({code}), so it is not known where Imburse is",
            next_step="--stack NAME if it is another one, or --base-url URL",
            code=ExitCode.REFUSED if code == "AccessDeniedException" else ExitCode.FAILED,
        ) from exc


def check(credential: CredentialId, key: ApiKey, hosts: Hosts, *, transport: Transport | None = None) -> None:
    """Exchange the key for a token and use it. Raises CommandError unless Imburse names the key's own account and tenant."""
    from imburse_auth.errors import UpstreamRejected, VendingError
    from imburse_auth.exchange import Exchange
    from imburse_auth.identity import identity_me
    from imburse_auth.retry import Deadline
    from imburse_auth.transport import Transport

    transport = transport or Transport()
    deadline, correlation_id = Deadline.after(CHECK_SECONDS), f"put-key-{secrets.token_hex(8)}"
    try:
        url = hosts.base_url(credential, key.base_url)
        token = Exchange(transport).access_token(key, url, deadline=deadline, correlation_id=correlation_id).token
        found = identity_me(transport, url, token.headers(), deadline=deadline, correlation_id=correlation_id)
    except VendingError as exc:
        problem = "Imburse does not accept this pair" if isinstance(exc, UpstreamRejected) else exc.detail
        if exc.upstream:
            problem += " (" + ", ".join(f"{name} {value}" for name, value in exc.upstream.as_dict().items()) + ")"
        hint = "compare it with the portal: this environment, this account and tenant, not revoked, a role for it?"
        raise CommandError(
            f"{problem}; nothing was stored",
            next_step="try again" if exc.retryable else hint,
            code=ExitCode.TRY_LATER if exc.retryable else ExitCode.FAILED,
        ) from None  # what it came from can hold a request, and with it a signature
    reached = set(_texts([found.accounts, found.tenants]))
    for field, wanted in (("accountId", key.account_id), ("tenantId", key.tenant_id)):
        if wanted is not None and wanted not in reached:
            raise CommandError(
                f"{field}: Imburse does not name it among what this pair reaches; nothing was stored",
                next_step="is the pair of this account and tenant?",
            )


def _texts(value: Any) -> Iterable[str]:  # noqa: ANN401 - JSON in the vendor's own shape, which nobody has printed
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value
