"""Unit tests: no network at all, not even to this machine."""

import pytest


@pytest.fixture(autouse=True)
def _no_sockets(socket_disabled: None) -> None:
    """Every test in here runs with sockets blocked."""
