"""What cedarpy imports and nobody here uses: not executed at a start, and there all the same for who asks for it."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> None:
    """In an interpreter of its own."""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_policy_is_loaded_and_asked_without_the_types_of_syntax_trees() -> None:
    run("""if True:
        import sys
        import tests.machine
        machine = tests.machine.Machine()
        machine.invoke({"credential": "sandbox/tenant-a"})
        assert "Template" not in vars(sys.modules["cedarpy.pst"])
    """)


def test_who_asks_for_a_syntax_tree_gets_it_and_every_name_is_the_same_module_afterwards() -> None:
    run("""if True:
        import vending.access, cedarpy, sys
        first = cedarpy.pst
        tree = cedarpy.policies_to_pst("permit (principal, action, resource);")
        assert isinstance(tree, first.PolicySet)
        assert isinstance(tree, cedarpy.pst.PolicySet)
        assert sys.modules["cedarpy.pst"] is cedarpy.pst
        from cedarpy.pst import Template
        assert isinstance(tree.static_policies["policy0"], Template)
    """)


def test_a_module_that_is_there_already_stays() -> None:
    run("""if True:
        import cedarpy.pst, sys
        there = sys.modules["cedarpy.pst"]
        import vending.access
        assert sys.modules["cedarpy.pst"] is there
    """)
