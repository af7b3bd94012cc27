"""May they? Who is calling, and what the policy says about it."""

from __future__ import annotations

import sys
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any


def import_late(name: str) -> None:
    """Have a module read and executed when something of it is first asked for, whoever imports it before."""
    if name in sys.modules:
        return
    late, lock = ModuleType(name), Lock()

    def __getattr__(attribute: str) -> Any:  # noqa: ANN401, N807 - what Python asks a module that lacks an attribute
        with lock:
            if sys.modules.get(name) is late:
                del sys.modules[name]
            module = import_module(name)
        return getattr(module, attribute)

    vars(late)["__getattr__"] = __getattr__
    sys.modules[name] = late


# What cedarpy has to show a policy's syntax tree by: 31 dataclasses, a twentieth of a cold start, and none is used here.
import_late("cedarpy.pst")
