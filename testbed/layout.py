"""What a testbed is asked to be, and where its files and ports are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from testbed.control import TestbedError

Verb = Literal["filter", "prioritize"]
"""What kube-scheduler asks of the extender."""

MARKER = "testbed.json"
"""Written when a testbed is up; tells other programs all they need."""

OPTIONAL = ("prometheus", "physics", "predictor", "recorder", "extender", "controller")
"""Processes that `--without` may leave out."""

PORTS = (
    "etcd",
    "etcd_peer",
    "apiserver",
    "controller_manager",
    "default_scheduler",
    "fairlane_scheduler",
    "kwok",
    "prometheus",
    "physics",
    "predictor",
    "predictor_metrics",
    "recorder",
    "extender",
    "extender_metrics",
    "controller",
)


@dataclass(frozen=True)
class Options:
    """What a testbed is asked to be.

    `settings` is laid over the generated Fairlane settings (scheduler.config),
    section by section. `lease_s` is the node lease: a quarter of it passes
    between two renewals, so thousands of nodes want hours. `extender_verb`
    is what kube-scheduler asks: to `filter`, for the best node alone, or to
    `prioritize`, for scores. Then `extender_weight` 100 makes one step worth
    1000 points, about as much as the other plugins together.
    """

    nodes: int = 12
    sites: int = 3
    seed: int = 1
    scrape_interval_s: float = 1.0
    lease_s: int = 40
    node_cpu: int = 16
    node_memory: str = "64Gi"
    node_pods: int = 110
    extender_verb: Verb = "filter"
    extender_weight: int = 100
    extender_timeout_ms: int = 200
    physics_args: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.nodes < 1 or not 1 <= self.sites <= min(self.nodes, 26):
            raise TestbedError(f"{self.nodes} nodes cannot form {self.sites} sites (1 to 26, no site empty)")
        if self.lease_s < 8:
            raise TestbedError("a node lease under 8 s expires between two renewals on a busy machine")
        if not 0.1 <= self.scrape_interval_s <= 3600:
            raise TestbedError("the scrape interval must be between 0.1 s and an hour")
        unknown = sorted(set(self.without) - set(OPTIONAL))
        if unknown:
            raise TestbedError(f"cannot leave out {', '.join(unknown)}; only: {', '.join(OPTIONAL)}")

    def wants(self, process: str) -> bool:
        """True unless the process was left out."""
        return process not in self.without


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one testbed, its ports by name, and the programs it runs."""

    directory: Path
    ports: Mapping[str, int]
    binaries: Mapping[str, Path]

    def file(self, name: str) -> Path:
        """A file or folder of the testbed."""
        return self.directory / name

    def log(self, process: str) -> Path:
        """The log of a process."""
        return self.directory / "logs" / f"{process}.log"

    def url(self, process: str, scheme: str = "http") -> str:
        """Base URL of the process's port."""
        return f"{scheme}://127.0.0.1:{self.ports[process]}"


def cache_folder() -> Path:
    """FAIRLANE_CACHE, else `fairlane` in the user's cache folder: what is costly to make again."""
    if chosen := os.environ.get("FAIRLANE_CACHE"):
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fairlane"


def default_directory() -> Path:
    """Where a testbed lives when no folder is named."""
    return cache_folder() / "testbeds" / "default"


def duration_s(text: str) -> float:
    """Seconds of `2s`, `500ms`, `1m`, `1.5`.

    Raises:
        TestbedError: the text is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)?\s*", text)
    if match is None:
        raise TestbedError(f"{text!r} is not a duration such as 2s, 500ms or 1m")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2] or "s"]


def write_options(path: Path, options: Options, mark: str) -> None:
    """Remember what this testbed is, so that another program can attach to it."""
    path.write_text(json.dumps({"mark": mark, "options": asdict(options)}, indent=2))


def read_options(path: Path) -> tuple[Options, str]:
    """What `write_options` wrote: the options and the mark."""
    known = json.loads(path.read_text())
    values = known["options"]
    lists = {name: tuple(values[name]) for name in ("without", "physics_args")}
    return Options(**{**values, **lists}), known["mark"]
