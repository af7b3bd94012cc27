"""May they? Who is calling, and what the policy says about it."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_late(name: str) -> None:
    """Have a module read and executed when something of it is first asked for, whoever imports it before."""
    if name in sys.modules:
        return
    late = ModuleType(name)

    def __getattr__(attribute: str) -> Any:  # noqa: ANN401, N807 - what Python asks a module that lacks an attribute
        if sys.modules.get(name) is late:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    vars(late)["__getattr__"] = __getattr__
    sys.modules[name] = late


# What cedarpy has to show a policy's syntax tree by: 31 dataclasses, a twentieth of a cold start, and none is used here.
import_late("cedarpy.pst")
