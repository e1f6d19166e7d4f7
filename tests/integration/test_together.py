"""How these tests are given to workers."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all of them")
def test_the_tests_of_a_file_stay_together(request: pytest.FixtureRequest) -> None:
    """Else each worker sets up everything, and a test does not meet what the one before it has left."""
    assert request.node.nodeid.endswith("@test_together")
