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
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG"):
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


def changed(path: Path, **cluster: str) -> Path:
    named = yaml.safe_load(written(path).read_text())
    named["clusters"][0]["cluster"] |= cluster
    path.write_text(yaml.safe_dump(named))
    return path


@pytest.mark.parametrize("content", [b"", b"root:x:0:0\n", b"- 1", b"a: [", b"\xff\xfe\0", b"clusters: 3"])
async def test_a_file_that_is_no_kubeconfig_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(kube.KubeError, match=r"no usable Kubernetes configuration \(.*pass --kubeconfig"):
        await kube.load_configuration(str(path))


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(kube.KubeError, match=f"there is no file {tmp_path}/none"):
        await kube.load_configuration(str(tmp_path / "none"))


@pytest.mark.usefixtures("elsewhere")
async def test_a_file_that_the_environment_names_in_vain_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/gone/config")
    with pytest.raises(kube.KubeError, match="there is no file /gone/config"):
        await kube.load_configuration()


@pytest.mark.parametrize(
    "wrong",
    [
        {"server": "nonsense"},
        {"server": "https://[::1"},
        {"server": "https://here:1", "certificate-authority": "/etc/hostname"},
        {"server": "https://here:1", "certificate-authority-data": "AAAA"},
    ],
)
async def test_an_address_or_an_authority_that_is_none_is_told(tmp_path: Path, wrong: dict[str, str]) -> None:
    path = changed(tmp_path / "config", **wrong)
    with pytest.raises(kube.KubeError, match=r"no usable Kubernetes configuration \(server "):
        async with kube.KubeClient.connect(str(path)):
            pass
