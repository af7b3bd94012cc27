"""What the network says of a URL, without a signature and without a request that means anything."""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit

from imburse_vending.common import ExitCode
from imburse_vending.doctor_walk import Result, State

CONNECT_SECONDS = 5


def reach(url: str) -> Result:
    """Name, connection, TLS: which of them fails. Nothing is sent."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    started = time.monotonic()
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        fix = "is the name right, and does this network's DNS know it (a private API: its VPC only)?"
        return Result(State.FAILED, f"DNS has no address for {host}", fix, ExitCode.TRY_LATER)
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
            if parts.scheme == "https":
                with ssl.create_default_context().wrap_socket(connection, server_hostname=host):
                    pass
    except ssl.SSLCertVerificationError:
        fix = "something in between answers with its own certificate, or the CA bundle is old"
        return Result(State.FAILED, f"the certificate of {host} is not to be trusted", fix)
    except ssl.SSLError as exc:
        why = getattr(exc, "reason", None) or type(exc).__name__
        return Result(State.FAILED, f"TLS with {host} fails ({why})", "is this the right port?")
    except OSError as exc:
        fix = "is it up, and does a firewall or security group let you?"
        return Result(
            State.FAILED, f"{host}:{port} takes no connection ({type(exc).__name__})", fix, ExitCode.TRY_LATER
        )
    steps = "DNS, TCP, TLS" if parts.scheme == "https" else "DNS, TCP"
    return Result(State.OK, f"{steps} in {(time.monotonic() - started) * 1000:.0f} ms")


def date_of(url: str) -> str | None:
    """The Date header of whatever answers there, unsigned; None if nothing does."""
    import requests

    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(url, allow_redirects=False, stream=True, timeout=(CONNECT_SECONDS, CONNECT_SECONDS))
            answer.close()
            return answer.headers.get("Date")
    except (requests.RequestException, OSError):
        return None
