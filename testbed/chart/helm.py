"""Running Helm on the chart: rendered objects, or Helm's own words when it refuses."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from testbed import binaries

CHART = Path(__file__).parents[2] / "helm" / "fairlane"
NAMESPACE = "fairlane-system"
TIMEOUT_S = 300.0
NEWEST = ("1.37.0", ("admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",))
"""A Kubernetes version, and what it serves that the chart asks for."""
OLDER = ("1.33.4", ())
"""One without policies that change objects."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C where there is one: 100 kB take a second in Python."""

Object = dict[str, Any]
Values = Mapping[str, Any]


class HelmError(Exception):
    """Helm refused; the message is what it said."""


class Helm:
    """The program at `program`, with configuration and caches of its own in a temporary folder."""

    def __init__(self, program: Path, kubeconfig: Path | None = None) -> None:
        self._program = program
        self._home = tempfile.TemporaryDirectory(prefix="fairlane-helm-")
        names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        self._environment = {**os.environ, **dict.fromkeys(names, self._home.name)}
        self._environment["KUBECONFIG"] = str(kubeconfig or Path(self._home.name) / "none")

    @staticmethod
    def found() -> Path | None:
        """Where a usable Helm is; None before `fairlane testbed programs helm` has built it."""
        return binaries.locate(binaries.PROGRAMS["helm"])

    def run(self, *words: str, values: Values | None = None) -> str:
        """Run Helm; what it printed. `values` are given as a file.

        Raises:
            HelmError: it ended with an error.
        """
        given: list[str] = []
        if values is not None:
            file = Path(self._home.name) / "values.yaml"
            file.write_text(yaml.safe_dump(dict(values)))
            given = ["--values", str(file)]
        told = subprocess.run(
            [self._program, *words, *given],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if told.returncode != 0:
            raise HelmError((told.stderr or told.stdout).strip())
        return told.stdout

    def template(
        self, values: Values, cluster: tuple[str, Sequence[str]] = NEWEST, api_versions: Sequence[str] = ()
    ) -> str:
        """The manifests for `values` on a cluster of that version which serves these APIs."""
        version, served = cluster
        apis = [word for name in (*served, *api_versions) for word in ("--api-versions", name)]
        where = ["--namespace", NAMESPACE, "--kube-version", version]
        return self.run("template", "fairlane", str(CHART), *where, *apis, values=values)

    def objects(self, values: Values, *more: Any, **named: Any) -> list[Object]:
        """The same, read."""
        text = self.template(values, *more, **named)
        return [one for one in yaml.load_all(text, Loader=_LOADER) if one]
