"""The policies' expressions accept and refuse the same strings as the webhook's Python."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from admission_setup import DRY, PODS, SUBMITTER, Installed, installed, pod
from admission_values import BAD, GOOD, near_the_border

from scheduler.core.admission.annotations import complaint
from scheduler.edge.kube import KubeClient, KubeError
from testbed.cluster import Cluster

pytestmark = pytest.mark.timeout(300)
RANDOM_VALUES = 150
PARALLEL = 8


@pytest.fixture(scope="module")
def admission(cluster: Cluster) -> Iterator[Installed]:
    """Admission by policies."""
    with installed(cluster, "policies") as state:
        yield state


@pytest.mark.parametrize("name", GOOD)
async def test_policies_and_webhook_agree_about_every_value(admission: Installed, name: str) -> None:
    values = dict.fromkeys([*GOOD[name], *BAD[name], *near_the_border(name, RANDOM_VALUES)])
    expected = {value: complaint({f"fairlane.dev/{name}": value}, {}, "fairlane") for value in values}
    slots = asyncio.Semaphore(PARALLEL)

    async def by_policies(kube: KubeClient, value: str) -> str:
        async with slots:
            try:
                await kube.post(PODS.format("team") + DRY, pod({name: value}, schedulerName="fairlane"))
            except KubeError as error:
                return error.message.partition("denied request: ")[2] or error.message
            return ""

    async with admission.user(SUBMITTER) as kube:
        said = await asyncio.gather(*(by_policies(kube, value) for value in values))
    different = {
        value: (by_policy, expected[value])
        for value, by_policy in zip(values, said, strict=True)
        if by_policy != expected[value]
    }
    assert different == {}
    assert {bool(sentence) for sentence in expected.values()} == {True, False}
