"""Real processes of other versions: neighbours work together, others refuse, say so, and lose nothing.

A process of another version is this one's code with another number in it, put
there before anything is imported that reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from placing import Placing, publish, registry
from raw_http import ask

from model import protocol
from model.schema import NAMES
from scheduler.edge.kube import KubeClient
from scheduler.edge.predictions import PredictionClient, PredictionError
from scheduler.structured_logs import event_id
from testbed.cluster import Cluster, Process

OURS = protocol.PROTOCOL
MODULE = ("-m", "scheduler.cli.main")
Eventually = Callable[..., Awaitable[None]]

pytestmark = pytest.mark.timeout(240)


def restart_as(cluster: Cluster, name: str, version: int) -> None:
    """Run one of Fairlane's processes as if it were of another version."""
    now = cluster.process(name)
    assert now.spec.argv[1:3] == MODULE
    code = f"from model import protocol; protocol.PROTOCOL = {version}; "
    code += "from scheduler.cli.main import main; main()"
    other = Process(cluster, replace(now.spec, argv=(now.spec.argv[0], "-c", code, *now.spec.argv[3:])))
    other.restart()


@pytest.fixture(scope="module")
def parts(cluster: Cluster, trained: Path) -> Iterator[Cluster]:
    publish(trained, registry(cluster))
    names = ("recorder", "predictor", "extender")
    for name in names:
        cluster.process(name).restart()
    yield cluster
    for name in reversed(names):
        cluster.process(name).stop()


@pytest.fixture
def placing(parts: Cluster, kube: KubeClient) -> Placing:
    return Placing(parts, kube)


def log_of(process: Process) -> str:
    return process.spec.log.read_text(errors="replace")


def decisions(placing: Placing) -> dict[str, Any]:
    return dict(placing.status().get("decisions", {}))


async def test_a_recorder_two_versions_on_refuses_and_afterwards_gets_all_that_was_decided(
    parts: Cluster, placing: Placing
) -> None:
    extender = parts.process("extender")
    restart_as(parts, "recorder", OURS + 2)
    extender.restart()
    before = len(log_of(extender))
    name = await placing.submit()
    await placing.all_bound([name])
    await placing.until(lambda: "speaks protocol" in placing.status().get("recorder_failure", ""))
    why = placing.status()["recorder_failure"]
    assert f"this recorder speaks protocol {OURS + 2}, the caller {OURS};" in why
    assert "upgrade the caller" in why
    second = await placing.submit()
    await placing.all_bound([second])
    await placing.until(lambda: decisions(placing)["waiting"] >= 2)
    assert (await placing.doctor()).names(f"extender ({OURS}) and recorder ({OURS + 2})")
    told = log_of(extender)[before:]
    event = event_id("scheduler.edge.decisions", "decisions are not recorded: %s")
    assert told.count(event) == 1, told
    parts.process("recorder").restart()
    await placing.until(lambda: placing.decided([name, second]) == 2)
    assert (decisions(placing)["dropped"], decisions(placing)["refused"]) == (0, 0)


@pytest.mark.parametrize("version", [OURS - 1, OURS + 1])
async def test_a_recorder_one_version_away_records(parts: Cluster, placing: Placing, version: int) -> None:
    restart_as(parts, "recorder", version)
    name = await placing.submit()
    await placing.all_bound([name])
    await placing.until(lambda: placing.decided([name]) == 1)
    assert "protocol" not in placing.status()["recorder_failure"]
    parts.process("recorder").restart()


async def test_a_predictor_two_versions_on_refuses_and_the_prior_ranks_meanwhile(
    parts: Cluster, placing: Placing
) -> None:
    restart_as(parts, "predictor", OURS + 2)
    told = f"this predictor speaks protocol {OURS + 2}, the caller {OURS};"
    await placing.until(lambda: told in placing.status().get("predictor_failure", ""), submitting=True)
    name = await placing.submit()
    await placing.all_bound([name])
    assert (await placing.doctor()).names(f"predictor ({OURS + 2})")
    address = f"127.0.0.1:{parts.layout.ports['predictor']}"
    token = yaml.safe_load(parts.settings_file.read_text())["token"]
    async with PredictionClient(address, 10.0, token) as client:
        assert (await client.current_model()).protocol_version == OURS + 2
        with pytest.raises(PredictionError, match="speaks protocol") as refused:
            await client.predict(["a"], np.full((1, len(NAMES)), np.nan), "etl")
        assert refused.value.code == "FAILED_PRECONDITION"
    parts.process("predictor").restart()
    await placing.until(lambda: not placing.status().get("predictor_failure"), submitting=True)


async def test_a_controller_two_versions_on_gets_no_plan_and_kube_scheduler_is_never_asked_its_version(
    parts: Cluster, placing: Placing
) -> None:
    port = parts.layout.ports["extender"]
    await placing.until(lambda: bool(placing.status().get("ready")))

    def plan(**headers: str) -> int:
        return ask(port, "POST", "/v1/plan", b"{", **headers).status

    answers = await asyncio.to_thread(
        lambda: [plan(), plan(fairlane_protocol=str(OURS + 1)), plan(fairlane_protocol=str(OURS + 2))]
    )
    assert answers == [400, 400, 409]  # understood, but no plan; refused
    calls = placing.status()["calls"]
    name = await placing.submit()
    await placing.all_bound([name])
    assert placing.status()["calls"] > calls
