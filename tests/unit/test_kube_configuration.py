"""Where a connection to the API server takes its configuration from when nobody names a file."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import yaml

from scheduler.edge import kube


def written(path: Path) -> Path:
    named = {
        "clusters": [{"name": "c", "cluster": {"server": "http://here:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}))
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No kubeconfig, and no pod around us."""
    monkeypatch.setattr(kube.kubernetes_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.usefixtures("elsewhere")
async def test_where_there_is_no_file_the_pod_is_asked_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kube.KubeError, match="run inside a pod with a service account"):
            await kube.load_configuration()


async def test_a_list_of_files_is_read_though_some_are_not_there(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.pathsep.join((str(elsewhere / "none"), str(written(elsewhere / "there"))))
    monkeypatch.setattr(kube.kubernetes_config, "KUBE_CONFIG_DEFAULT_LOCATION", listed)
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", listed)
    assert (await kube.load_configuration()).host == "http://here:1"
