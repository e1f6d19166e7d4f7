"""`fairlane trial` on the real parts: it succeeds when all do their share, and says which does not."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from admission_setup import installed

from scheduler.config import Settings
from scheduler.edge.kube import KubeClient
from scheduler.edge.recorder_client import RecorderClient
from scheduler.edge.trial import Plan, TrialFailed, try_gang
from testbed.cluster import Cluster

NAMESPACE = "default"
PATIENT = Plan(NAMESPACE, size=2, image="none", within_s=60.0)
HASTY = Plan(NAMESPACE, size=1, image="none", within_s=1.0)


class _Pods(msgspec.Struct):
    items: list[msgspec.Raw]


@pytest.fixture(scope="module")
def admitted(cluster: Cluster) -> Iterator[Cluster]:
    """The shared testbed with admission policies; its controller runs as the user fairlane-controller."""
    with installed(cluster, "policies", controller="fairlane-controller"):
        yield cluster


async def test_without_admission_it_says_that_nothing_gates(kube: KubeClient) -> None:
    with pytest.raises(TrialFailed, match="got no gate and no stamp: admission is not installed"):
        await try_gang(kube, None, HASTY, print)
    assert await _left(kube) == 0


async def test_without_a_controller_it_says_that_nothing_is_released(
    admitted: Cluster, kube: KubeClient
) -> None:
    assert admitted.process("controller").pid is None
    with pytest.raises(TrialFailed, match=r"was not released within 1 s: the controller says nothing"):
        await try_gang(kube, None, HASTY, print)
    assert await _left(kube) == 0


async def test_a_gang_goes_all_the_way_and_leaves_nothing_behind(admitted: Cluster, kube: KubeClient) -> None:
    for name in ("recorder", "controller"):
        admitted.process(name).restart()
    told: list[str] = []
    settings = Settings.load(admitted.settings_file, {})
    try:
        token = settings.token.get_secret_value()
        async with RecorderClient.connect(settings.recorder_url, token) as recorder:
            await try_gang(kube, recorder, PATIENT, told.append)
    finally:
        for name in ("controller", "recorder"):
            admitted.process(name).stop()
    said = "\n".join(told)
    for step in (
        "gang waits while",
        "gated 2 pods and stamped them as admin",
        "whole gang",
        "placed",
        "knows",
    ):
        assert step in said
    assert await _left(kube) == 0


async def _left(kube: KubeClient) -> int:
    pods = msgspec.json.decode(await kube.get(f"/api/v1/namespaces/{NAMESPACE}/pods"), type=_Pods)
    return sum(b"fairlane-trial" in bytes(one) for one in pods.items)
