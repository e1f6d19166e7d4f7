"""`kubectl fairlane` finds by itself where a command has to run, in every installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Pod = dict[str, Any]
KUBECTL = """#!{python}
import json, os, sys
words = sys.argv[1:]
with open(os.environ["ASKED"], "a") as log:
    log.write(json.dumps(words) + "\\n")
if "config" in words:
    user = {{"name": "u", "user": {{"token": "t"}}}}
    cluster = {{"name": "c", "cluster": {{"server": "http://" + words[words.index("--context") + 1]}}}}
    context = {{"name": "x", "context": {{"cluster": "c", "user": "u"}}}}
    told = {{"contexts": [context], "users": [user], "clusters": [cluster]}}
    print(json.dumps({{"current-context": "x", **told}}))
elif "leases" in words:
    held = os.environ.get("HELD") or sys.exit("Error from server (Forbidden): leases is forbidden")
    print(json.dumps({{"items": [{{"spec": {{"holderIdentity": one}}}} for one in held.split()]}}))
elif "exec" in words:
    print("ran", *words)
elif "--all-namespaces" in words and os.environ.get("FORBIDDEN"):
    sys.exit("Error from server (Forbidden): pods is forbidden")
else:
    at = [i for i, word in enumerate(words) if word in ("-n", "--namespace")]
    own = None if "--all-namespaces" in words else words[at[-1] + 1]
    pods = json.loads(os.environ["PODS"])
    print(json.dumps({{"items": [pod for pod in pods if own in (None, pod["metadata"]["namespace"])]}}))
"""


def pod(
    name: str, *containers: str, namespace: str = "fairlane-system", ready: bool = True, **meta: str
) -> Pod:
    told = [{"name": one, "ready": ready, "state": {"running": {}}} for one in containers]
    metadata = {"name": name, "namespace": namespace, **meta}
    return {"metadata": metadata, "status": {"containerStatuses": told}}


class Laptop:
    """A machine whose kubectl knows `pods`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "kubectl").write_text(KUBECTL.format(python=sys.executable))
        (folder / "kubectl").chmod(0o755)
        self.log = folder / "asked"
        known = {
            name: value for name, value in os.environ.items() if not name.startswith(("FAIRLANE", "KUBE"))
        }
        self.environment = known | {"PATH": str(folder), "ASKED": str(self.log), "HOME": str(folder)}

    def run(self, *words: str, pods: list[Pod], **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | more | {"PODS": json.dumps(pods)}
        command = [sys.executable, "-m", "scheduler.cli.plugin", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


BY_EXTENDER = [pod("s-1", "kube-scheduler", "extender"), pod("c-1", "controller")]
BY_HINT = [pod("s-1", "kube-scheduler"), pod("c-1", "controller", "extender")]
QUEUE_ONLY = [pod("c-1", "controller")]


@pytest.mark.parametrize("command", ["status", "doctor", "explain"])
@pytest.mark.parametrize(
    ("pods", "where"),
    [
        (BY_EXTENDER, ("fairlane-system", "s-1", "extender")),
        (BY_HINT, ("fairlane-system", "c-1", "extender")),
        (QUEUE_ONLY, ("fairlane-system", "c-1", "controller")),
        ([pod("own-x", "extender", namespace="batch")], ("batch", "own-x", "extender")),
        (
            [pod("s-1", "extender", ready=False), pod("s-2", "extender")],
            ("fairlane-system", "s-2", "extender"),
        ),
        ([pod("s-1", "extender", ready=False)], ("fairlane-system", "s-1", "extender")),
        (
            [pod("s-1", "extender", deletionTimestamp="2026-11-22T00:10:08Z"), pod("s-2", "extender")],
            ("fairlane-system", "s-2", "extender"),
        ),
    ],
)
def test_what_asks_the_parts_runs_in_a_container_that_is_there(
    laptop: Laptop, command: str, pods: list[Pod], where: tuple[str, str, str]
) -> None:
    told = laptop.run(command, "-o", "json", pods=pods)
    namespace, name, container = where
    wanted = f"ran --namespace {namespace} exec {name} -c {container} -- fairlane {command} -o json"
    assert told.stdout.strip() == wanted, told.stderr


@pytest.mark.parametrize(
    ("held", "where"),
    [
        ("s-2_0a1b c-1-7-0a", "s-2"),
        ("s-1_0a1b", "s-1"),
        ("gone_0a1b", "s-1"),
        ("s-22_0a1b", "s-1"),
        ("", "s-1"),
    ],
)
def test_of_several_replicas_the_one_that_leads_is_asked_where_kubectl_tells(
    laptop: Laptop, held: str, where: str
) -> None:
    """The other one was never asked for a node, and has nothing to tell."""
    pods = [pod("s-1", "kube-scheduler", "extender"), pod("s-2", "kube-scheduler", "extender")]
    told = laptop.run("status", pods=pods, HELD=held)
    assert told.stdout.split()[4] == where, told.stdout
    assert told.stderr == ""


def test_one_that_leads_but_is_not_ready_is_not_asked(laptop: Laptop) -> None:
    pods = [pod("s-1", "extender"), pod("s-2", "extender", ready=False)]
    assert laptop.run("status", pods=pods, HELD="s-2_0a1b").stdout.split()[4] == "s-1"


def test_kubectls_own_options_stay_and_only_the_named_namespace_is_looked_at(laptop: Laptop) -> None:
    pods = [*BY_EXTENDER, pod("q-1", "controller", namespace="own")]
    told = laptop.run("--context=prod", "-n", "own", "queue", "--user", "alice", pods=pods)
    assert told.stdout.split("ran ")[1].split() == [
        *("--context=prod", "-n", "own", "--namespace", "own", "exec", "q-1", "-c", "controller"),
        *("--", "fairlane", "queue", "--user", "alice"),
    ]
    told = laptop.run("-n", "empty", "status", pods=pods)
    assert told.returncode == 1
    assert "no pod of Fairlane with a container extender or controller runs in namespace empty" in told.stderr


def test_what_is_not_there_is_said_in_a_sentence(laptop: Laptop) -> None:
    told = laptop.run("queue", pods=[pod("s-1", "extender")])
    assert told.returncode == 1
    assert "no pod of Fairlane with a container controller runs in any namespace" in told.stderr
    told = laptop.run("queue", pods=[], FORBIDDEN="yes")
    assert told.returncode == 1
    assert "in namespace fairlane-system" in told.stderr
    assert "pods is forbidden" in told.stderr
    assert "Traceback" not in told.stderr
    (laptop.folder / "kubectl").unlink()
    told = laptop.run("status", pods=[])
    assert (told.returncode, "kubectl cannot be run: No such file" in told.stderr) == (1, True)
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    "words",
    [["--help"], ["queue", "--help"], ["simulate", "--help"], ["admission", "manifests"]],
)
def test_everything_else_runs_here_and_asks_kubectl_for_nothing(laptop: Laptop, words: list[str]) -> None:
    assert laptop.run(*words, pods=[]).returncode == 0
    assert not laptop.log.exists()


def test_a_settings_file_means_here(laptop: Laptop) -> None:
    for told in (
        laptop.run("queue", "--config", "gone.yaml", pods=BY_HINT),
        laptop.run("queue", pods=BY_HINT, FAIRLANE_CONFIG="gone.yaml"),
    ):
        assert "gone.yaml" in told.stderr
    assert not laptop.log.exists()


def test_what_runs_here_uses_the_cluster_and_the_namespace_that_kubectls_options_choose(
    laptop: Laptop,
) -> None:
    told = laptop.run("--context", "127.0.0.1:9", "-n", "own", "trial", pods=[])
    asked = [json.loads(line) for line in laptop.log.read_text().splitlines()]
    assert asked[0][:6] == ["--context", "127.0.0.1:9", "-n", "own", "config", "view"]
    assert "127.0.0.1:9" in told.stderr
    assert "the pod own/fairlane-trial-" in told.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["-n", "prod", "queue", "--us"], ["--user"]),
        (["--context=prod", "queue", "--us"], ["--user"]),
        (["queue", "--user", "a b", "--lim"], ["--limit"]),
        (["-nprod", "sup"], ["support-bundle"]),
        (["-n", "sup"], []),
    ],
)
def test_commands_are_completed_behind_kubectls_own_options(words: list[str], offered: list[str]) -> None:
    script = "from scheduler.cli.plugin import complete; complete()"
    told = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    ).stdout
    assert told.split() == [*offered, ":4"]


def test_a_namespace_may_be_written_behind_its_option_without_a_space(laptop: Laptop) -> None:
    told = laptop.run("-nprod", "status", pods=[pod("s-1", "extender", namespace="prod")])
    assert told.stdout.split("ran ")[1].split()[:4] == ["-n", "prod", "--namespace", "prod"]
