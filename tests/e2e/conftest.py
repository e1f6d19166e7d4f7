"""One kind cluster for all tests of this folder. It needs root (or a running Docker) and some minutes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.kind import deploy
from testbed.kind.cluster import KindCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[KindCluster]:
    with KindCluster("fairlane-test", workers=2) as one:
        deploy.data(one)
        yield one
