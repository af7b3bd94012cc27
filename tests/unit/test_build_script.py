"""The end of requirements/build: what is deployed is compiled, or nothing is deployed."""

from __future__ import annotations

import importlib.util
import marshal
import os
import subprocess
import sys
from pathlib import Path

from tests.machine import ROOT

COMPILES = (ROOT / "requirements/build").read_text(encoding="utf-8").partition("\nunset PYTHONPYCACHEPREFIX\n")


def compiled(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run that part of the script on what lies in `folder`, as `make build` does: compiled modules are to go elsewhere."""
    environ = os.environ | {"PYTHONPYCACHEPREFIX": str(folder / "elsewhere"), "python": sys.executable}
    script = "set -euo pipefail" + "".join(COMPILES[1:])
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True)


def module(folder: Path, part: str) -> Path:
    source = folder / ".aws-sam/build" / part / "a_module.py"
    source.parent.mkdir(parents=True)
    source.write_text("def where():\n    return 1\n")
    return source


def test_each_function_and_layer_is_compiled_beside_its_sources_for_where_it_will_be(tmp_path: Path) -> None:
    function, layer = module(tmp_path, "VendFunction"), module(tmp_path, "Layer/python")
    stale = function.parent / "__pycache__" / "a_module.cpython-30.pyc"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    done = compiled(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not stale.exists()
    for source, at in ((function, "/var/task/a_module.py"), (layer, "/opt/python/a_module.py")):
        cache = Path(importlib.util.cache_from_source(str(source)))
        (found,) = (source.parent / "__pycache__").iterdir()
        assert found.name == cache.name
        head, code = found.read_bytes()[:16], marshal.loads(found.read_bytes()[16:])
        assert int.from_bytes(head[4:8], "little") == 0b01, "by its hash, which is not looked at"
        assert code.co_filename == at
    assert not (tmp_path / "elsewhere").exists()


def test_a_part_of_which_nothing_was_compiled_ends_the_build(tmp_path: Path) -> None:
    module(tmp_path, "VendFunction").rename(tmp_path / "nothing")
    done = compiled(tmp_path)
    assert done.returncode == 1
    assert done.stderr == ".aws-sam/build/VendFunction: nothing was compiled\n"
