"""GPUs that pods use: dcgm-exporter names these pods in its labels where the scrape job honours them."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_prometheus import Exporter, RealPrometheus, binary, eventually

from scheduler.config import Settings
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.telemetry import TelemetryPoller

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(binary("prometheus") is None, reason="needs the program `prometheus`"),
]
USE_OF_POD = {"": 0.0, "train-0": 96.0, "train-1": 84.0}
"""Per cent of three GPUs of one node, the first of which nobody uses."""


def _exporter() -> str:
    lines = []
    for gpu, (pod, use) in enumerate(USE_OF_POD.items()):
        labels = f'gpu="{gpu}",Hostname="n0"' + (f',namespace="team",pod="{pod}"' if pod else "")
        lines += [f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} {use}", f"DCGM_FI_DEV_FB_USED{{{labels}}} {use}"]
        lines.append(f"DCGM_FI_DEV_FB_FREE{{{labels}}} {100.0 - use}")
    return "\n".join(lines) + "\n"


def test_a_node_is_as_busy_as_all_of_its_gpus_whoever_uses_them(tmp_path: Path) -> None:
    exporter = Exporter(_exporter)
    prometheus = RealPrometheus(tmp_path, {exporter.address: {"node": "n0"}})
    prometheus.start()
    values = {"prometheus": {"url": prometheus.url, "rate_range_s": 5.0}, "sources": ["dcgm"]}
    poller = TelemetryPoller(Settings.model_validate(values), lambda: [NodeIdentity("n0", ("10.0.0.10",))])

    def known() -> bool:
        return poller.poll() and not poller.snapshot.is_empty()

    try:
        assert eventually(known)
        for reading in ("gpu_use", "gpu_memory_use"):
            assert poller.snapshot.node_readings[reading].tolist() == [pytest.approx(0.6)]
        assert {report.duplicates for report in poller.reports} == {0}
    finally:
        poller.stop()
        prometheus.close()
        exporter.close()
