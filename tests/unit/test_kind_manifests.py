"""The manifests of the kind cluster: every name is filled in, nobody is root, jobs carry their hints."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.kind import deploy
from testbed.kind.jobs import DEFAULT, AllReduce, Place, Transfer
from testbed.kind.spark import Shuffle

FOLDER = Path(deploy.__file__).parent / "manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
VALUES: dict[str, str] = defaultdict(lambda: "some/image:1")


def objects(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(deploy.render(name, VALUES)) if one]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_is_whole_once_its_names_are_filled_in(name: str) -> None:
    assert all({"apiVersion", "kind", "metadata"} <= set(one) for one in objects(name))
    assert "@" not in deploy.render(name, VALUES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "policies"])
def test_no_container_may_be_root_or_become_it(name: str) -> None:
    for one in objects(name):
        for container in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
            rights = container["securityContext"]
            assert rights["runAsNonRoot"], container["name"]
            assert not rights["allowPrivilegeEscalation"], container["name"]


def test_an_unknown_name_in_a_manifest_is_an_error() -> None:
    with pytest.raises(KeyError):
        deploy.render("monitoring", {"prometheus": "x"})


def test_a_transfer_says_how_much_it_reads_and_from_where() -> None:
    job = Transfer("image", "storage", "10.0.0.1:8080", 5_000_000).manifest("job", Place())
    hints = job["metadata"]["annotations"]
    assert hints["fairlane.dev/input-bytes"] == "5000000"
    assert hints["fairlane.dev/data-nodes"] == "storage"
    assert job["spec"]["schedulerName"] == "fairlane"


def test_a_run_for_the_truth_gives_no_hint_away() -> None:
    job = Transfer("image", "storage", "10.0.0.1:8080", 5).manifest("job", Place(DEFAULT, "b", truth=True))
    assert job["metadata"]["annotations"] == {"fairlane.dev/job-class": "truth"}
    assert job["spec"]["nodeName"] == "b"


def test_members_of_a_gang_never_share_a_node() -> None:
    job = AllReduce("image", "driver", 1000, 10)
    worker = job.worker("gang", 1, "10.0.0.1", Place())
    driver = job.driver("gang", truth=False)
    rule = worker["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    labels = rule["labelSelector"]["matchLabels"]
    assert labels.items() <= worker["metadata"]["labels"].items()
    assert labels.items() <= driver["metadata"]["labels"].items()


def test_spark_executors_are_placed_by_the_scheduler_that_was_asked_for() -> None:
    words = Shuffle("image", "driver", 1000).submission("gang", "fairlane")["spec"]["containers"][0]["args"]
    assert "spark.kubernetes.executor.scheduler.name=fairlane" in words
    assert "spark.kubernetes.executor.annotation.fairlane.dev/gang=gang" in words
