"""`imburse-vending sign`: the vendor's online HMAC form, offline, so that no private key goes into a web page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from imburse_vending import common
from imburse_vending.common import CommandError, ExitCode
from imburse_vending.key_input import BodyFile, KeyFile, read_bytes, read_key, refuse_two_readers

EXAMPLES = """[bold]Examples[/bold]

imburse-vending sign --key-file tenant-a.secret.json

imburse-vending sign --body order.json    # asks for the key, and does not show it

aws secretsmanager get-secret-value --secret-id imburse/sandbox/tenant-a --query SecretString --output text |
imburse-vending sign --key-file - --json
"""


def sign(
    key_file: KeyFile = None,
    body: BodyFile = None,
    nonce: Annotated[str | None, typer.Option(help="Letters and digits; a new one is made without it.")] = None,
    timestamp: Annotated[int | None, typer.Option(help="Seconds since 1970; now without it.")] = None,
    *,
    as_json: common.AsJson = False,
) -> None:
    """Sign a request, offline, and show each step.

    What is hashed, what is signed, and the header to send, as the vendor's online form does. The header is good for one
    request within five minutes. The private key is never shown.
    """
    from imburse_auth import hmac_token

    refuse_two_readers(key_file, body)
    content = b"" if body is None else read_bytes(body, "--body")
    api_key = read_key(key_file).api_key()
    try:
        signed = hmac_token.sign(api_key, content, nonce=nonce, timestamp=timestamp)
    except ValueError as exc:
        raise CommandError(f"--{exc}", code=ExitCode.USAGE) from None
    data = {
        "publicKey": signed.public_key,
        "nonce": signed.nonce,
        "timestamp": signed.timestamp,
        "bodyHash": signed.body_hash,
        "stringToSign": signed.string_to_sign,
        "signature": signed.signature,
        "authorization": signed.authorization,
    }
    shown = {
        "body": f"{len(content)} bytes",
        "body hash": signed.body_hash or "(empty, since there is no body)",
        "nonce": signed.nonce,
        "timestamp": f"{signed.timestamp}  {datetime.fromtimestamp(signed.timestamp, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "string to sign": signed.string_to_sign,
        "signature": signed.signature,
        "header": f"Authorization: {signed.authorization}",
    }
    common.emit(data, common.pairs(shown), as_json=as_json)
