"""`kubectl fairlane ...`: the same commands as a plugin of kubectl; those that ask the parts run beside them.

From a laptop the parts cannot be reached, and need not be: what asks them is
run by `kubectl exec` in the pod that is allowed to. Everything else, and all
where a settings file is named, runs here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from scheduler.cli.main import app

NAMESPACE = "fairlane-system"
BESIDE = {
    **dict.fromkeys(("status", "doctor", "explain"), ("extender", "controller")),
    **dict.fromkeys(("queue", "usage"), ("controller",)),
}
"""Which commands run in which container: the first that is installed."""
USUALLY = {"extender": "fairlane-scheduler", "controller": "fairlane-controller"}
"""Their workloads. Where placement is written at release, the extender is beside the controller."""
CONTAINERS = (
    "get", "deployments", "--selector", "app.kubernetes.io/name=fairlane", "--output",
    r'jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.template.spec.containers[*].name}{"\n"}{end}',
)  # fmt: skip
ASKED_S_MAX = 20.0
OPTIONS = ("-n", "--namespace", "--context", "--cluster", "--user", "--kubeconfig", "--request-timeout")
"""Of kubectl, before the command."""
ONLY_COMPLETIONS = ":4"
"""What kubectl wants as the last line: offer these and no file names."""


def main() -> None:
    """Entry point of kubectl-fairlane: run the command beside the parts, or here."""
    words = sys.argv[1:]
    instead = beside(words, os.environ, installed)
    if instead is None:
        _, rest = split(words)
        sys.exit(app(rest, prog_name="kubectl fairlane"))
    try:
        os.execvp(instead[0], instead)
    except OSError as error:
        sys.exit(f"kubectl fairlane: kubectl cannot be run: {error.strerror}")


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """kubectl's own options at the beginning, and our command with its own."""
    at = 0
    while at < len(words) and words[at].partition("=")[0] in OPTIONS:
        at += 1 if "=" in words[at] else 2
    return list(words[:at]), list(words[at:])


def installed(kubectl: Sequence[str]) -> dict[str, str]:
    """The workload of each container of ours; the usual ones if nobody tells: who may exec may not list."""
    try:
        told = subprocess.run(
            [*kubectl, *CONTAINERS], capture_output=True, text=True, timeout=ASKED_S_MAX, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        told = ""
    found = {
        container: workload
        for workload, *containers in map(str.split, filter(str.strip, told.splitlines()))
        for container in containers
    }
    return found or USUALLY


def beside(
    words: Sequence[str],
    environment: Mapping[str, str],
    ask: Callable[[Sequence[str]], Mapping[str, str]],
) -> list[str] | None:
    """The kubectl command that runs it in the cluster; None for what runs here.

    `ask` tells the workload of each container that is installed, asked by this kubectl with its options.
    """
    options, rest = split(words)
    named = any(word.partition("=")[0] == "--config" for word in rest)
    if not rest or rest[0] not in BESIDE or "--help" in rest or named or "FAIRLANE_CONFIG" in environment:
        return None
    where = [] if any(word.partition("=")[0] in ("-n", "--namespace") for word in options) else [NAMESPACE]
    kubectl = ["kubectl", *(["--namespace", *where] if where else []), *options]
    workloads = ask(kubectl)
    container = next((one for one in BESIDE[rest[0]] if one in workloads), BESIDE[rest[0]][0])
    workload = workloads.get(container, USUALLY[container])
    return [*kubectl, "exec", f"deploy/{workload}", "-c", container, "--", "fairlane", *rest]


def complete() -> None:
    """Entry point of kubectl_complete-fairlane: what kubectl's completion offers after `kubectl fairlane`."""
    words = ["fairlane", *sys.argv[1:]]
    os.environ |= {
        "_FAIRLANE_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    try:
        app([], prog_name="fairlane")
    except SystemExit:
        print(ONLY_COMPLETIONS)
