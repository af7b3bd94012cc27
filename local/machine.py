"""Keeps this machine's own settings out of the local stack: everything here talks to 127.0.0.1 with made-up credentials."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

_LOOPBACK = "127.0.0.1,localhost,::1"


def leave_out_own_settings(environ: MutableMapping[str, str]) -> None:
    """Drop the developer's AWS settings (a profile, an endpoint, a CA bundle), and use no proxy for this machine."""
    for name in [name for name in environ if name.startswith("AWS_")]:
        del environ[name]
    environ["AWS_CONFIG_FILE"] = environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    for name in ("NO_PROXY", "no_proxy"):
        environ[name] = ",".join(filter(None, [environ.get(name), _LOOPBACK]))
