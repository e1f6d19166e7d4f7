"""The manifests that README and docs tell a reader to save, made small enough for this cluster.

What is changed, and nothing else: image and command of each container (those of the pages are in no
registry), its requests (a node here has two cores), and how many completions a Job has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from testbed.kind.images import ROOT
from testbed.kind.workloads.figures import Object

PAGES = {
    "my-pod.yaml": "README.md",
    "job.yaml": "docs/opting-in.md",
    "gang.yaml": "docs/opting-in.md",
    "queue.yaml": "docs/queues.md",
    "spark-application.yaml": "docs/opting-in.md",
}


@dataclass(frozen=True, slots=True)
class Small:
    """What the examples run here."""

    image: str
    seconds: float
    cpu: str
    completions: int


def example(name: str) -> Object:
    """The manifest that a page tells the reader to save as `name`; raises `ValueError` if none does."""
    page = ROOT / PAGES[name]
    found = re.search(
        rf"^<!-- save: {re.escape(name)} -->\n```yaml\n(.*?)^```$", page.read_text(), re.M | re.S
    )
    if found is None:
        raise ValueError(f"{page} has no block that is to be saved as {name}")
    read: Object = yaml.safe_load(found[1])
    return read


def adapted(manifest: Object, small: Small) -> Object:
    """The manifest with the image, command, requests and completions of `small`."""
    spec = manifest["spec"]
    if manifest["kind"] == "Job":
        spec["completions"] = min(spec["completions"], small.completions)
        spec = spec["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = 1
    for container in spec["containers"]:
        container |= {
            "image": small.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", f"import time; time.sleep({small.seconds})"],
            "resources": {"requests": {"cpu": small.cpu, "memory": "30Mi"}},
        }
    return manifest


def saved(folder: Path, name: str, small: Small) -> Path:
    """The adapted example as a file."""
    file = folder / name
    file.write_text(yaml.safe_dump(adapted(example(name), small), sort_keys=False))
    return file
