"""What a function's memory holds when its init has ended, which is what SnapStart takes a snapshot of: run as a process of its own.

`python -m tests.snapshot_walk NAME` imports `handlers.NAME`, prints what it finds as JSON, then reads its AWS credentials and a
key and exchanges that for a token, as the function would, and prints what it finds then: what sees nothing must be seen to see
something. It also tells which modules asked for randomness meanwhile: a nonce, a jitter or an id that was drawn before the
snapshot would be the same in every environment that is restored from it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import re
import secrets
import socket
import ssl
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import urllib3

# Who asks one of these asks for randomness. They are imported before anything is watched, since `random` seeds itself then.
_SOURCES = {module.__name__ for module in (os, random, secrets, ssl, tempfile, uuid)}
_FIRST_HAND = ("urandom", "getrandom", "RAND_bytes", "generate_time_safe")
# The values that must not be there; written like this, the pattern does not find itself.
CANARY = re.compile(rb"CANARY[-]([a-z]+)[-][0-9a-f]{32}")


@contextmanager
def draws() -> Iterator[set[str]]:
    """The modules that ask for randomness in the block, by whatever function and however they imported it."""
    asking: set[str] = set()

    def note(frame: FrameType | None, kind: str, called: Any) -> None:
        if kind != "c_call":
            return
        if called.__name__ in _FIRST_HAND or isinstance(getattr(called, "__self__", None), random.Random):
            while frame is not None and frame.f_globals["__name__"] in _SOURCES:
                frame = frame.f_back
            asking.add(str(frame and frame.f_globals["__name__"]))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield asking
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _memory() -> set[str]:
    """The kinds of canary in the memory of the process, as a core dump would have it: freed, cached or held by C, too."""
    found = set()
    with Path("/proc/self/maps").open() as maps, Path("/proc/self/mem").open("rb", 0) as memory:
        for line in maps:
            addresses, rights = line.split()[:2]
            if not rights.startswith("rw") or line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            try:
                memory.seek(start)
                found |= {match[1].decode() for match in CANARY.finditer(memory.read(end - start))}
            except (OSError, ValueError):
                continue
    return found


def _ours() -> list[ModuleType]:
    return [
        module for name, module in sys.modules.items() if name.split(".")[0] in ("handlers", "vending", "imburse_auth")
    ]


def _random_state(objects: list[Any]) -> list[str]:
    """Generators with a state that every restored environment would go on from: none of ours, and none that we use."""
    generators = [
        thing for thing in objects if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom)
    ]
    found = [repr(type(one)) for one in generators if one is not random._inst]
    for module in _ours():
        for name, value in vars(module).items():
            if value is random or getattr(value, "__self__", None) is random._inst:
                found.append(f"{module.__name__}.{name}")
    return found


def _state(objects: list[Any]) -> dict[str, Any]:
    """What caches, seen tokens and the audit chain's id are after init."""
    from imburse_auth.secrets import SecretStore
    from vending.record.audit import AuditTrail
    from vending.supply.once import Once

    held: dict[str, Any] = {}
    for thing in objects:
        if isinstance(thing, SecretStore):
            held["keys"] = held.get("keys", 0) + len(thing._entries) + len(thing._fetches)
        if isinstance(thing, Once):
            held["tokens"] = held.get("tokens", 0) + len(thing._seen)
        if isinstance(thing, AuditTrail):
            held["chain"] = held.get("chain") or thing._environment
    return held


def look() -> dict[str, Any]:
    """What there is to be found now."""
    # Not before the function itself imports them: it is to be seen doing so.
    from imburse_auth import AccessToken, ApiKey, HmacToken
    from imburse_auth.transport import Answer

    connection = urllib3.connection.HTTPConnection
    kinds = (ApiKey, AccessToken, HmacToken, Answer, socket.socket, urllib3.HTTPResponse, connection)
    gc.unfreeze()  # what `handlers.started` froze counts too
    gc.collect()
    objects = gc.get_objects()
    return {
        "memory": sorted(_memory()),
        "kinds": sorted({type(thing).__name__ for thing in objects if isinstance(thing, kinds)}),
        "random": _random_state(objects),
        "state": _state(objects),
        "threads": threading.active_count(),
        "sockets": sum(
            "socket:" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
        ),
    }


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(name: str) -> None:
    """Look after init, and again after the function has read what it works with, and worked."""
    with draws() as asking:
        importlib.import_module(f"handlers.{name}")
    _tell(look() | {"draws": sorted(asking)})
    from imburse_auth import CredentialId
    from imburse_auth.aws import Aws
    from imburse_auth.exchange import Exchange
    from imburse_auth.retry import Deadline
    from imburse_auth.secrets import SecretStore, secrets_client
    from imburse_auth.transport import Transport

    store, exchange = SecretStore(secrets_client(Aws())), Exchange(Transport())
    with draws() as asking:
        key = store.get(CredentialId.parse("sandbox/tenant-a"))
        exchanged = exchange.access_token(key, os.environ["AWS_ENDPOINT_URL"], deadline=Deadline.after(60))
    _tell(look() | {"draws": sorted(asking), "key": key.public_key, "base_url": exchanged.base_url})


if __name__ == "__main__":
    main(sys.argv[1])
