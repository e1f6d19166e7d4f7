"""Ten thousand creations at full rate: none fails because of us."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import pytest
from admission_setup import PODS, installed, pod

from scheduler.edge.kube import KubeClient, KubeError
from testbed.cluster import Cluster

CREATIONS = 10_000
PARALLEL = 64

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


async def create_all(kube: KubeClient, paths: list[str]) -> Counter[str]:
    """Create a pod at every path, `PARALLEL` at once; what became of them."""
    outcomes: Counter[str] = Counter()
    queue = iter(paths)

    async def work() -> None:
        for path in queue:
            try:
                made = json.loads(await kube.post(path, pod(schedulerName="fairlane")))
            except KubeError as error:
                outcomes[str(error)[:200]] += 1
            else:
                outcomes["gated" if made["spec"].get("schedulingGates") else "not gated"] += 1

    await asyncio.gather(*(work() for _ in range(PARALLEL)))
    return outcomes


@pytest.mark.parametrize("by", ["webhook", "policies"])
def test_ten_thousand_creations_at_full_rate_lose_none(
    cluster: Cluster, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(state: object) -> tuple[Counter[str], float]:
        async with state.user("alice") as alice:  # type: ignore[attr-defined]
            begun_s = time.monotonic()
            outcomes = await create_all(alice, [PODS.format("team")] * CREATIONS)
            took_s = time.monotonic() - begun_s
            await alice.delete(PODS.format("team"), {"gracePeriodSeconds": "0"})
            return outcomes, took_s

    with installed(cluster, by) as state:
        outcomes, took_s = asyncio.run(run(state))
    with capsys.disabled():
        print(f"\n{by}: {CREATIONS / took_s:.0f} creations/s, {dict(outcomes)}")
    assert outcomes == {"gated": CREATIONS}
