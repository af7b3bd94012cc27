"""End-to-end tests: real clients and processes, all on 127.0.0.1."""

from collections.abc import Iterator

import pytest

from tests import dynalite_server
from tests.dynalite_server import Dynalite


@pytest.fixture(scope="session")
def dynalite() -> Iterator[Dynalite]:
    """One server for all the tests that need it; each takes a table of its own."""
    with dynalite_server.dynalite() as server:
        yield server
