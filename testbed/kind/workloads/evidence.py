"""What is kept of a scenario that failed: objects, events and logs, one file each."""

from __future__ import annotations

import asyncio
from pathlib import Path

from testbed.chart.helm import NAMESPACE
from testbed.kind.shell import CommandError
from testbed.kind.workloads.ground import Ground

PARTS = ("scheduler", "controller", "recorder", "predictor")
LINES = "400"


async def collect(ground: Ground, folder: Path) -> None:
    """Write what helps to see why a scenario failed; what cannot be had says so in its file."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    asked = {
        "pods.txt": ["get", "pods", "-A", "-o", "wide"],
        "nodes.txt": ["describe", "nodes"],
        "events.txt": ["get", "events", "-A", "--sort-by=.lastTimestamp"],
        "queue.txt": ["-n", NAMESPACE, "exec", "deploy/fairlane-controller", "--", "fairlane", "queue"],
    }
    for namespace in ground.namespaces:
        asked[f"{namespace}.yaml"] = ["get", "pods,jobs,configmaps", "-n", namespace, "-o", "yaml"]
        asked[f"{namespace}-pods.txt"] = ["describe", "pods", "-n", namespace]
    for part in PARTS:
        words = ["logs", f"deploy/fairlane-{part}", "--all-containers", f"--tail={LINES}"]
        asked[f"log-{part}.txt"] = ["-n", NAMESPACE, *words]
    for name, words in asked.items():
        try:
            told = await ground.kubectl(*words, timeout_s=30.0)
        except CommandError as error:
            told = f"could not be had: {error}\n"
        (folder / name).write_text(told)
    logs = await _pod_logs(ground)
    (folder / "job-logs.txt").write_text(logs)
    ground.cluster.progress.say(f"{ground.letter}: objects, events and logs are in {folder}")


async def _pod_logs(ground: Ground) -> str:
    parts = []
    for namespace in ground.namespaces:
        for life in ground.journal.pods(namespace):
            if life.gone or not life.pod["spec"].get("nodeName"):
                continue
            try:
                told = await ground.kubectl("-n", namespace, "logs", life.name, "--tail=60", timeout_s=20.0)
            except CommandError as error:
                told = f"could not be had: {error}\n"
            parts.append(f"--- {namespace}/{life.name}\n{told}")
    return "\n".join(parts)
