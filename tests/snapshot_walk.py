"""What a function's memory holds when its init has ended, which is what SnapStart takes a snapshot of: run as a process of its own.

`python -m tests.snapshot_walk NAME` imports `handlers.NAME`, prints what it finds as JSON, then lets the function read its AWS
credentials and a key, and prints what it finds then: what sees nothing must be seen to see something.
"""

from __future__ import annotations

import gc
import importlib
import json
import random
import re
import socket
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import urllib3

from imburse_auth import AccessToken, ApiKey, CredentialId, HmacToken
from imburse_auth.transport import Answer

# The values that must not be there; written like this, the pattern does not find itself.
CANARY = re.compile(rb"CANARY[-]([a-z]+)[-][0-9a-f]{32}")
KINDS: tuple[type, ...] = (
    ApiKey,
    AccessToken,
    HmacToken,
    Answer,
    socket.socket,
    urllib3.HTTPResponse,
    urllib3.connection.HTTPConnection,
)


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
    gc.unfreeze()  # what `handlers.started` froze counts too
    gc.collect()
    objects = gc.get_objects()
    return {
        "memory": sorted(_memory()),
        "kinds": sorted({type(thing).__name__ for thing in objects if isinstance(thing, KINDS)}),
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
    """Look after init, and again after the function has read what it works with."""
    importlib.import_module(f"handlers.{name}")
    _tell(look())
    from imburse_auth.aws import Aws
    from imburse_auth.secrets import SecretStore, secrets_client

    store = SecretStore(secrets_client(Aws()))
    key = store.get(CredentialId.parse("sandbox/tenant-a"))
    _tell(look() | {"key": key.public_key})


if __name__ == "__main__":
    main(sys.argv[1])
