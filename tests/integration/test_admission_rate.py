"""Ten thousand creations at full rate: none fails because of us."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import suppress

import pytest
from admission_setup import PODS, Installed, installed, pod

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


async def remove_all(kube: KubeClient, path: str) -> None:
    """Delete the pods; so many take longer than one request may."""
    while json.loads(await kube.get(path, {"limit": "1"}))["items"]:
        with suppress(KubeError):
            await kube.delete(path, {"gracePeriodSeconds": "0"})


@pytest.mark.parametrize("by", ["webhook", "policies"])
def test_ten_thousand_creations_at_full_rate_lose_none(
    cluster: Cluster, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = PODS.format("team")

    async def run(state: Installed) -> Counter[str]:
        async with state.user("alice") as alice:
            begun_s = time.monotonic()
            outcomes = await create_all(alice, [path] * CREATIONS)
            took_s = time.monotonic() - begun_s
            with capsys.disabled():
                print(f"\n{by}: {CREATIONS / took_s:.0f} creations/s, {dict(outcomes)}")
            await remove_all(alice, path)
            return outcomes

    with installed(cluster, by) as state:
        assert asyncio.run(run(state)) == {"gated": CREATIONS}
