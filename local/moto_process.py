"""moto's server, closed to web pages: `python -m local.moto_process PORT`. It says `Running on <url>` once it answers.

moto lets every origin in (CORS), so any page open in a browser on this machine could ask it for the secrets. AWS's clients send
no Origin header, and name the host that they were told.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def closed_to_web_pages(application: Wsgi) -> Wsgi:
    """The application, which refuses what a browser's page sends, also by a name that was made to point here."""

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rpartition(":")[0]
        if "HTTP_ORIGIN" in environ or host not in ("127.0.0.1", "localhost"):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"not for web pages\n"]
        return application(environ, start_response)

    return guarded


if __name__ == "__main__":
    application = closed_to_web_pages(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=MotoRequestHandler)
