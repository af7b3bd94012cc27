"""A microservice that uses the client, run as a program: a Flask app on a free port of 127.0.0.1, whose URL it prints."""

from __future__ import annotations

from flask import Flask
from werkzeug.serving import make_server

from imburse_auth.client import VendedSession

app = Flask("payouts")
imburse = VendedSession("sandbox/tenant-a", ahead=20)


@app.get("/reach")
def reach() -> tuple[dict[str, object], int]:
    """What Imburse says that our key reaches, and how many tries it took."""
    answer = imburse.get("/v1/identity/me")
    return {"imburse": answer.json(), "tries": 1 + len(answer.history)}, answer.status_code


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201 - who started it waits for this
    server.serve_forever()
