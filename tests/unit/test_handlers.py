"""Starting a function: what init does and does not do, and what keeps it from starting."""

import gc
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import urllib3

from imburse_auth import AccessToken, ApiKey, HmacToken
from tests.machine import ENVIRON, POLICY_DIR

HANDLERS = ["vend", "api", "access_report", "refill", "probe", "rotate"]
WITH_POLICY = ["vend", "api", "access_report", "probe"]


def start(name: str, **changes: str) -> ModuleType:
    """A fresh import of a handler, as a new execution environment makes it."""
    spec = importlib.util.find_spec(f"handlers.{name}")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with mock.patch.dict(os.environ, {**ENVIRON, **changes}):
            spec.loader.exec_module(module)
    finally:  # the other tests want to see everything, and a process in which the collector works
        gc.unfreeze()
        gc.enable()
    return module


@pytest.mark.parametrize("name", HANDLERS)
def test_a_function_starts_without_a_network_and_has_a_handler(name: str) -> None:
    assert callable(start(name).handler)


@pytest.mark.parametrize("name", HANDLERS)
def test_a_snapshot_after_init_holds_no_key_no_token_no_connection_and_no_thread(name: str) -> None:
    gc.unfreeze()  # what another test's start left out of sight is no more new than the rest
    gc.collect()
    before = {id(thing) for thing in gc.get_objects()}
    threads = threading.active_count()
    module = start(name)
    assert threading.active_count() == threads
    new = [thing for thing in gc.get_objects() if id(thing) not in before]
    kinds = (ApiKey, AccessToken, HmacToken, urllib3.HTTPResponse, urllib3.connection.HTTPConnection)
    assert not [thing for thing in new if isinstance(thing, kinds)]
    state: Any = getattr(module, "vending", None)
    if state is not None:
        assert state._supply._secrets._entries == {}
        assert len(state._supply._once._seen) == 0


@pytest.mark.parametrize("name", HANDLERS)
def test_the_garbage_collector_rests_while_a_function_starts_and_leaves_what_is_there_then_alone(name: str) -> None:
    program = f"""if True:
        import gc, json
        runs = lambda: sum(generation["collections"] for generation in gc.get_stats())
        before = runs()
        import handlers.{name}
        print(json.dumps([runs() - before, gc.isenabled(), gc.get_freeze_count()]))
    """
    environ = {**os.environ, **ENVIRON}
    output = subprocess.run([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, check=True).stdout
    collections, working, frozen = json.loads(output)
    assert collections <= 1  # before `handlers` itself is found; a hundred without the rest
    assert working
    assert frozen > 50_000


@pytest.mark.parametrize("name", HANDLERS)
def test_a_function_starts_without_boto3(name: str) -> None:
    program = f"import sys, handlers.{name}; sys.exit('boto3' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **ENVIRON}, check=True)


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        *((name, variable) for name in HANDLERS for variable in ("POWERTOOLS_SERVICE_NAME", "IMBURSE_HOSTS")),
        *((name, "ACCESS_POLICY") for name in WITH_POLICY),
        *((name, "VENDING_TABLE") for name in ("vend", "api", "refill", "probe", "rotate")),
        *(("rotate", variable) for variable in ("DELETE_ROTATED_KEYS", "ROTATION_GRACE_SECONDS")),
        *((name, "REFILL_FUNCTION") for name in ("vend", "api")),
    ],
)
def test_a_function_without_its_settings_does_not_start(name: str, variable: str) -> None:
    with pytest.raises(ValueError, match=rf"^{variable}: "):
        start(name, **{variable: ""})


def test_a_probe_without_the_alias_of_nobody_does_not_start() -> None:
    with pytest.raises(ValueError, match=r"^VEND_AS_NOBODY: "):
        start("probe", VEND_AS_NOBODY="")


@pytest.mark.parametrize(("variable", "value"), [("DELETE_ROTATED_KEYS", "yes"), ("ROTATION_GRACE_SECONDS", "1h")])
def test_a_rotation_with_settings_that_could_mean_anything_does_not_start(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{variable}: must be "):
        start("rotate", **{variable: value})


def test_a_report_without_its_alias_does_not_start() -> None:
    with pytest.raises(ValueError, match=r"^VEND_FUNCTION: "):
        start("access_report", VEND_FUNCTION="")


@pytest.mark.parametrize("name", WITH_POLICY)
@pytest.mark.parametrize("rule", ["permit (", 'permit (principal == User::"x", action, resource);'])
def test_a_policy_that_is_not_sound_keeps_the_function_from_starting(name: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "dev.cedar").write_text(rule)
    (tmp_path / "schema.cedarschema").write_text((POLICY_DIR / "schema.cedarschema").read_text())
    with pytest.raises(ValueError, match=r"^access policy dev\.cedar: "):
        start(name, ACCESS_POLICY=str(tmp_path / "dev.cedar"))
