"""/healthz says that a process answers, /readyz whether it can do its work: what it needs is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from one_process import serving, told
from placing import publish
from real_prometheus import eventually

from testbed.cluster import Cluster
from testbed.ports import Reservation

pytestmark = pytest.mark.timeout(900)
WITHIN_S = 200.0
"""Ample: how fast the machine is must not matter."""


def test_the_predictor_is_ready_once_it_has_a_model(tmp_path: Path, trained: Path) -> None:
    ports, registry = Reservation(), tmp_path / "registry"
    port = ports.take(1)[0]
    own = {"metrics_host": "127.0.0.1", "metrics_port": port, "registry": str(registry), "reload_s": 0.5}
    with serving("predictor", tmp_path, {"predictor": {**own, "host": "127.0.0.1"}}):
        assert eventually(lambda: told(port, "/healthz") == (200, "ok\n"), WITHIN_S)
        status, why = told(port, "/readyz")
        assert (status, "no model was published yet" in why) == (503, True)
        assert "fairlane_predictor_serving 0.0" in told(port, "/metrics")[1]
        publish(trained, registry)
        assert eventually(lambda: told(port, "/readyz") == (200, "ready\n"), WITHIN_S)
        metrics = told(port, "/metrics")[1]
        assert "fairlane_predictor_model_examples 160.0" in metrics
        assert told(port, "/scheduler/prioritize")[0] == 404


@pytest.mark.long
def test_the_extender_is_not_ready_on_old_telemetry(cluster: Cluster, tmp_path: Path) -> None:
    ports = Reservation()
    port = ports.take(1)[0]
    settings = yaml.safe_load(cluster.settings_file.read_text())
    own = {"metrics_port": port, "max_epoch_age_s": 4.0}
    changed = {**settings, "extender": {**settings["extender"], **own}}
    kubeconfig = str(cluster.layout.file("extender.kubeconfig"))
    prometheus = cluster.process("prometheus")
    with serving("extender", tmp_path, changed, "--kubeconfig", kubeconfig):
        assert eventually(lambda: told(port, "/readyz")[0] == 200, WITHIN_S)
        prometheus.pause()
        try:
            assert eventually(lambda: told(port, "/readyz")[0] == 503, WITHIN_S)
            assert "s old: " in told(port, "/readyz")[1]
            assert told(port, "/healthz") == (200, "ok\n")
        finally:
            prometheus.resume()
        assert eventually(lambda: told(port, "/readyz")[0] == 200, WITHIN_S)
