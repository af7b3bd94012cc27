"""moto's server with three things put right: `moto_process.py PORT` says `Running on http://127.0.0.1:<port>` once it answers.

moto's DynamoDB is not atomic under threads: two deletes of one item at the same time may both be told that they won. Here one
request to it is answered at a time, so a claim is what it is on AWS.

moto's Secrets Manager keeps a secret's current version twice, and moves only the stage. After a rotation a value that is stored
by hand would leave AWSCURRENT where it was, and there a second time: the key of the rotation would stay in use.

moto lets every origin in (CORS), so any page open in a browser on this machine could ask it for the secrets. AWS's clients send
no Origin header, and name the host that they were told; others are refused.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.secretsmanager.models import SecretsManagerBackend
from werkzeug.serving import run_simple

_Start = Callable[..., Any]
_Wsgi = Callable[[dict[str, Any], _Start], Iterable[bytes]]
_Move = Callable[..., tuple[str, str]]


class OneAtATime:
    """A WSGI application in which requests to DynamoDB wait for each other."""

    def __init__(self, application: _Wsgi) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: _Start) -> Iterable[bytes]:
        """Answer a request; moto has made the whole answer when it returns."""
        if not str(environ.get("HTTP_X_AMZ_TARGET", "")).startswith("DynamoDB"):
            return self._application(environ, start_response)
        with self._lock:
            return self._application(environ, start_response)


def remembered(move: _Move) -> _Move:
    """UpdateSecretVersionStage, after which moto knows of both its records which version is current."""

    def moved(backend: Any, **asked: Any) -> tuple[str, str]:  # noqa: ANN401 - moto's own
        answer = move(backend, **asked)
        if asked["version_stage"] == "AWSCURRENT" and asked["move_to_version_id"]:
            backend.secrets[asked["secret_id"]].set_default_version_id(asked["move_to_version_id"])
        return answer

    return moved


def closed_to_web_pages(application: _Wsgi) -> _Wsgi:
    """The application, which refuses what a browser's page sends, also by a name that was made to point here."""

    def guarded(environ: dict[str, Any], start_response: _Start) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rpartition(":")[0]
        if "HTTP_ORIGIN" in environ or host not in ("127.0.0.1", "localhost"):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"not for web pages\n"]
        return application(environ, start_response)

    return guarded


if __name__ == "__main__":
    move: Any = remembered(SecretsManagerBackend.update_secret_version_stage)
    SecretsManagerBackend.update_secret_version_stage = move  # type: ignore[method-assign]
    application = closed_to_web_pages(OneAtATime(DomainDispatcherApplication(create_backend_app)))
    run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=MotoRequestHandler)
