"""Every file that is made, with its text: one place says what is made of what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from scheduler.admission_settings import AdmissionSettings
from scheduler.cli.admission import as_yaml
from scheduler.edge.manifests import policy_manifests, webhook_manifests
from testbed import binaries
from testbed.chart.admission import policies_template, webhooks_template
from testbed.chart.commands import commands_text
from testbed.chart.dashboards import dashboard_texts
from testbed.chart.forms import forms_text
from testbed.chart.helm import CHART, NAMESPACE, Helm
from testbed.chart.log_events import events_text
from testbed.chart.reference import reference_text
from testbed.chart.schema import schema_text
from testbed.progress import Progress

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
RENDERED = MANIFESTS / "fairlane.yaml"
RENDERED_VALUES = {
    "token": {"existingSecret": "fairlane-token"},
    "admission": {"by": "none"},
    "crds": {"install": False},
    "test": {"enabled": False},
}
"""Admission and the FairQueue resource have files of their own there; a token must not be in a file."""
_HEAD = f"""\
# Made by `make manifests` from helm/fairlane with its defaults. Before it:
#   kubectl apply -f manifests/fairqueue-crd.yaml
#   kubectl create namespace {NAMESPACE}
#   kubectl -n {NAMESPACE} create secret generic fairlane-token --from-literal=token=$(openssl rand -hex 24)
# and after it manifests/admission-policies.yaml (Kubernetes 1.36 and newer) or admission-webhook.yaml.
# Its {{image}}
# must be of your cluster's version, or it waits for ever for kinds that an older API server does not have.
"""


def made_files(progress: Progress) -> Iterator[tuple[Path, str]]:
    """All of them, in the order in which they depend on one another.

    Raises:
        BinaryError: Helm cannot be had.
        HelmError: the chart cannot be rendered.
    """
    yield from without_helm()
    program = binaries.ensure(["helm"], progress)["helm"]
    yield RENDERED, rendered(Helm(program))


def without_helm() -> Iterator[tuple[Path, str]]:
    """Those that only need Python."""
    yield CHART / "templates" / "admission-policies.yaml", policies_template()
    yield CHART / "templates" / "admission-webhooks.yaml", webhooks_template()
    yield CHART / "values.schema.json", schema_text()
    yield CHART / "files" / "forms.json", forms_text()
    yield ROOT / "docs" / "values.md", reference_text()
    yield ROOT / "docs" / "cli.md", commands_text()
    yield ROOT / "docs" / "events.md", events_text()
    for name, text in dashboard_texts():
        yield CHART / "files" / "dashboards" / f"{name}.json", text
    yield MANIFESTS / "admission-policies.yaml", as_yaml(policy_manifests(AdmissionSettings()))
    yield MANIFESTS / "admission-webhook.yaml", as_yaml(webhook_manifests(AdmissionSettings()))
    yield MANIFESTS / "fairqueue-crd.yaml", (CHART / "files" / "fairqueue-crd.yaml").read_text()


def rendered(helm: Helm) -> str:
    """manifests/fairlane.yaml."""
    text = helm.template(RENDERED_VALUES)
    images = re.findall(r"image: (\S+/kube-scheduler:\S+)", text)
    return _HEAD.format(image=images[0]) + text


def differing(files: Iterable[tuple[Path, str]], write: bool = False) -> list[Path]:
    """Those whose text is another one; with `write` they are written, each before the next is made."""
    found = []
    for path, text in files:
        if not path.exists() or path.read_text() != text:
            found.append(path)
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    return found
