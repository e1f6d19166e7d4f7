"""`kubectl fairlane ...`: the same commands as a plugin of kubectl; those that ask the parts run beside them.

From a laptop the parts cannot be reached, and need not be: what asks them is
run by `kubectl exec` in the pod that is allowed to. Everything else, and all
where a settings file is named, runs here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from scheduler.cli.main import app

NAMESPACE = "fairlane-system"
BESIDE = {
    **dict.fromkeys(("status", "doctor", "explain"), ("deploy/fairlane-scheduler", "extender")),
    **dict.fromkeys(("queue", "usage"), ("deploy/fairlane-controller", "controller")),
}
"""Which commands run where: workload and container."""
OPTIONS = ("-n", "--namespace", "--context", "--cluster", "--user", "--kubeconfig", "--request-timeout")
"""Of kubectl, before the command."""
ONLY_COMPLETIONS = ":4"
"""What kubectl wants as the last line: offer these and no file names."""


def main() -> None:
    """Entry point of kubectl-fairlane: run the command beside the parts, or here."""
    words = sys.argv[1:]
    instead = beside(words, os.environ)
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


def beside(words: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """The kubectl command that runs it in the cluster; None for what runs here."""
    options, rest = split(words)
    named = any(word.partition("=")[0] == "--config" for word in rest)
    if not rest or rest[0] not in BESIDE or "--help" in rest or named or "FAIRLANE_CONFIG" in environment:
        return None
    workload, container = BESIDE[rest[0]]
    where = [] if any(word.partition("=")[0] in ("-n", "--namespace") for word in options) else [NAMESPACE]
    namespace = ["--namespace", *where] if where else []
    return ["kubectl", *namespace, *options, "exec", workload, "-c", container, "--", "fairlane", *rest]


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
