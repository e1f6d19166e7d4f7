"""`fairlane trial` on the real parts: it succeeds when all do their share, and says which does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest
from admission_setup import installed
from typer.testing import CliRunner

from scheduler.cli.trial import app
from scheduler.config import Settings
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.recorder_client import RecorderClient
from scheduler.edge.trial import Part, Plan, TrialFailed, try_gang
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


async def test_what_failed_first_is_told_also_where_pods_cannot_be_removed() -> None:
    """As for somebody without rights, or where no API server answers."""
    nowhere = _Refusing()
    with pytest.raises(TrialFailed, match=r"no right to create; of the pods .* may stay behind in default$"):
        await try_gang(cast(KubeClient, nowhere), None, HASTY, print)
    assert nowhere.asked == 1
    with pytest.raises(TrialFailed, match="no right to create"):
        await try_gang(cast(KubeClient, nowhere), None, PATIENT, print)
    assert nowhere.asked == 3, "each pod is tried, also behind one that stays"


async def test_its_pods_go_where_the_nodes_are() -> None:
    """And nothing that is given so goes before what makes it a trial."""
    where = {"tolerations": [{"operator": "Exists"}], "schedulerName": "other", "restartPolicy": "Always"}
    refusing = _Refusing()
    with pytest.raises(TrialFailed):
        await try_gang(cast(KubeClient, refusing), None, replace(HASTY, spec=where), print)
    spec = refusing.posted["spec"]
    assert spec["tolerations"] == where["tolerations"]
    assert (spec["schedulerName"], spec["restartPolicy"]) == ("fairlane", "Never")


@pytest.mark.parametrize(("spec", "why"), [("{", "it is no JSON"), ("[]", "it must be a JSON object")])
def test_what_is_no_spec_is_refused(spec: str, why: str) -> None:
    ended = CliRunner().invoke(app, ["--spec", spec])
    assert (ended.exit_code, why in ended.output) == (2, True)


class _Refusing:
    """An API server for which we may do nothing; `asked` counts the deletions."""

    asked = 0

    async def post(self, _path: str, manifest: dict[str, Any]) -> bytes:
        self.posted = manifest
        raise KubeError(403, "Forbidden", "no right to create")

    async def delete(self, *_words: object) -> None:
        self.asked += 1
        raise KubeError(403, "Forbidden", "no right to delete")


@pytest.mark.long
async def test_where_there_is_no_queue_pods_go_straight_to_our_scheduler(
    cluster: Cluster, kube: KubeClient
) -> None:
    told: list[str] = []
    async with _recorder(cluster) as recorder:
        await try_gang(kube, recorder, replace(PATIENT, without=frozenset({Part.QUEUE})), told.append)
    said = "\n".join(told)
    for step in ("2 pods were taken without a gate", "kube-scheduler placed", "recorder knows"):
        assert step in said
    assert "released" not in said
    assert await _left(kube) == 0


@pytest.mark.usefixtures("admitted")
async def test_a_gate_that_nobody_opens_is_told_where_there_is_no_queue(kube: KubeClient) -> None:
    with pytest.raises(TrialFailed, match=r"got a gate, but the queue is not installed"):
        await try_gang(kube, None, replace(HASTY, without=frozenset({Part.QUEUE})), print)
    assert await _left(kube) == 0


async def test_where_our_scheduler_is_not_the_gang_is_queued_and_the_default_one_places_it(
    admitted: Cluster, kube: KubeClient
) -> None:
    told: list[str] = []
    admitted.process("controller").restart()
    admitted.process("fairlane-scheduler").stop()
    try:
        async with _recorder(admitted) as recorder:
            await try_gang(kube, recorder, replace(PATIENT, without=frozenset({Part.SCHEDULER})), told.append)
    finally:
        admitted.process("controller").stop()
        admitted.process("fairlane-scheduler").restart()
    said = "\n".join(told)
    for step in ("gang waits while", "gated 2 pods", "whole gang", "the default scheduler placed", "knows"):
        assert step in said
    assert "note: the extender" not in said
    assert await _left(kube) == 0


async def test_without_a_controller_it_says_that_nothing_is_released(
    admitted: Cluster, kube: KubeClient
) -> None:
    assert admitted.process("controller").pid is None
    with pytest.raises(TrialFailed, match=r"was not released within 1 s: the controller says nothing"):
        await try_gang(kube, None, HASTY, print)
    assert await _left(kube) == 0


async def test_a_gang_goes_all_the_way_and_leaves_nothing_behind(admitted: Cluster, kube: KubeClient) -> None:
    admitted.process("controller").restart()
    told: list[str] = []
    try:
        async with _recorder(admitted) as recorder:
            await try_gang(kube, recorder, PATIENT, told.append)
    finally:
        admitted.process("controller").stop()
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


@asynccontextmanager
async def _recorder(cluster: Cluster) -> AsyncIterator[RecorderClient]:
    """The testbed's recorder, running for as long as this."""
    settings = Settings.load(cluster.settings_file, {})
    cluster.process("recorder").restart()
    try:
        token = settings.token.get_secret_value()
        async with RecorderClient.connect(settings.recorder_url, token) as recorder:
            yield recorder
    finally:
        cluster.process("recorder").stop()


async def _left(kube: KubeClient) -> int:
    pods = msgspec.json.decode(await kube.get(f"/api/v1/namespaces/{NAMESPACE}/pods"), type=_Pods)
    return sum(b"fairlane-trial" in bytes(one) for one in pods.items)
