"""`fairlane support-bundle` and `fairlane status` as a user runs them, with secrets planted everywhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_doctor_command import Answers, answers, kubeconfig, node

__all__ = ["answers"]
pytestmark = pytest.mark.timeout(600)
NAMESPACE = "fairlane-system"
PLANTED = {
    "token": "planted-shared-token-1",
    "header": "planted-tenant-2",
    "bearer": "planted-bearer-3",
    "store": "planted-store-password-4",
    "pod": "planted-pod-value-6",
    "argument": "planted-argument-7",
    "log": "planted-log-password-8",
    "message": "planted-in-a-sentence-9",
    "variable": "planted-variable-10",
}
"""Where, and what."""
QUEUE = {
    "queue": "default",
    "paused": False,
    "waiting": 1,
    "incomplete": 0,
    "infeasible": 0,
    "running": 2,
    "held": 0.5,
    "complaints": [],
    "expected_starts": {},
    "flows": [
        {"user": "alice", "weight": 2.0, "entitled": 0.6, "held": 0.5, "received": 9.0, "received_share": 0.7}
        | {"running": 2, "waiting": 1}
    ],
    "gangs": [
        {"user": "alice", "state": "waiting", "arrived_s": time.time() - 300, "pods": ["team/alice-etl-0"]}
    ],
}


@pytest.fixture
def installation(answers: Answers, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A settings file and an environment; behind the URLs, parts and an API server that tell too much."""
    container = {
        "name": "extender",
        "env": [{"name": "DATABASE", "value": PLANTED["pod"]}],
        "args": ["extender", "--api-key", PLANTED["argument"]],
    }
    status = {"containerStatuses": [{"name": "extender", "restartCount": 0}]}
    pod = {**node("fairlane-0"), "spec": {"containers": [container]}, "status": status}
    failure = f"cannot reach postgresql://fair:{PLANTED['store']}@db/x with {PLANTED['message']}"
    answers.json |= {
        f"/api/v1/namespaces/{NAMESPACE}/pods": {"items": [pod]},
        f"/api/v1/namespaces/{NAMESPACE}/pods/fairlane-0/log": f"login password={PLANTED['log']} by alice",
        "/v1/queue": QUEUE,
        "/apis/fairlane.dev/v1alpha1/fairqueues": {
            "items": [{"spec": {"weights": [{"user": "zoe", "weight": 2}]}}]
        },
        "/v1/status": {**answers.json["/v1/status"], "store_failure": failure},
    }
    answers.token = PLANTED["token"]
    (tmp_path / "bearer").write_text(PLANTED["bearer"])
    settings: dict[str, Any] = {
        "kubeconfig": kubeconfig(tmp_path, answers.url),
        "token": PLANTED["token"],
        "prometheus": {
            "bearer_token_file": str(tmp_path / "bearer"),
            "headers": {"X-Scope-OrgID": PLANTED["header"]},
        },
        "recorder": {"store_url": f"postgresql://fair:{PLANTED['store']}@db/x"},
        **dict.fromkeys(("extender_url", "recorder_url", "controller_url"), answers.url),
    }
    (tmp_path / "fairlane.yaml").write_text(yaml.safe_dump(settings))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FAIRLANE_")}
    environment |= {"MY_API_TOKEN": PLANTED["message"], "OTHER_PASSWORD": PLANTED["variable"]}
    return tmp_path, environment


def run(installation: tuple[Path, dict[str, str]], *words: str) -> subprocess.CompletedProcess[str]:
    folder, environment = installation
    argv = [sys.executable, "-m", "scheduler.cli.main", *words, "--config", str(folder / "fairlane.yaml")]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=500)


def test_no_planted_secret_is_in_the_bundle_and_what_is_left_out_is_said(
    installation: tuple[Path, dict[str, str]],
) -> None:
    file = installation[0] / "bundle.tar.gz"
    told = run(installation, "support-bundle", "--hash-users", "--output", str(file))
    assert told.returncode == 0, told.stderr
    assert file.stat().st_mode & 0o077 == 0
    with tarfile.open(file) as archive:
        members = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        texts = {name: content.read().decode() for name, content in members.items() if content}
    everything = "\n".join([*texts, *texts.values(), told.stdout, told.stderr])
    assert [where for where, secret in PLANTED.items() if secret in everything] == []
    assert "alice" not in everything
    assert "zoe" not in everything
    names = {name.removeprefix("fairlane-support/") for name in texts}
    assert names >= {
        *("settings.json", "doctor.json", "status.json", "queue.json", "versions.json", "left-out.txt"),
        *("cluster/pods.json", "cluster/nodes.json", "recorder/status.txt", "logs/fairlane-0-extender.log"),
    }
    assert "DATABASE" in texts["fairlane-support/cluster/pods.json"]
    assert "login password=" in texts["fairlane-support/logs/fairlane-0-extender.log"]
    assert "user-" in texts["fairlane-support/queue.json"]
    left_out = texts["fairlane-support/left-out.txt"]
    assert "values of environment variables" in left_out
    assert "cluster/events.json" in left_out


QUEUES = "/apis/fairlane.dev/v1alpha1/fairqueues"


def told_by(file: Path) -> str:
    """All of a bundle."""
    with tarfile.open(file) as archive:
        contents = [archive.extractfile(one) for one in archive.getmembers()]
        return "\n".join(content.read().decode() for content in contents if content)


@pytest.mark.parametrize(
    "source", ["weight", "status", "stamp", "on behalf of", "namespace", "checkpoint", "setting"]
)
def test_users_are_hashed_though_the_queue_does_not_answer(
    installation: tuple[Path, dict[str, str]], answers: Answers, source: str
) -> None:
    answers.json.pop("/v1/queue")
    spec: dict[str, Any] = {"weights": [{"user": "alice", "weight": 2}]} if source == "weight" else {}
    spec |= {"flowKey": "Namespace"} if source == "namespace" else {}
    status = {"flows": [{"user": "alice"}]} if source == "status" else {}
    stamp = {"stamp": "fairlane.dev/user", "on behalf of": "fairlane.dev/on-behalf-of"}.get(source)
    annotations = {stamp: "alice"} if stamp else {"fairlane.dev/user": "bob"}
    pod = {"metadata": {"name": "p", "namespace": "alice" if source == "namespace" else "x"}}
    pod["metadata"]["annotations"] = annotations
    answers.json[QUEUES] = {
        "metadata": {},
        "items": [{"metadata": {"name": "q"}, "spec": spec, "status": status}],
    }
    answers.json["/api/v1/pods"] = {"metadata": {}, "items": [pod]}
    if source == "checkpoint":
        state = {"core": {"received": [[["default", "alice"], 3.0]], "weights": []}}
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        kept = {"metadata": {}, "data": {"pieces": "1", "slot": "a"}, "binaryData": {"state": packed}}
        answers.json[f"/api/v1/namespaces/{NAMESPACE}/configmaps/fairlane-controller"] = kept
    if source == "setting":
        settings = yaml.safe_load((installation[0] / "fairlane.yaml").read_text())
        settings["controller"] = {"weights": {"alice": 2}}
        (installation[0] / "fairlane.yaml").write_text(yaml.safe_dump(settings))
    file = installation[0] / "bundle.tar.gz"
    words = ("support-bundle", "--namespace", NAMESPACE, "--output", str(file))
    assert run(installation, *words).returncode == 0
    assert "alice" in told_by(file)
    told = run(installation, *words, "--hash-users")
    assert told.returncode == 0, told.stderr
    everything = told_by(file)
    assert "alice" not in everything
    assert "by user-" in everything
    assert "users: the queue does not tell them" in everything


def test_nothing_is_written_when_users_are_to_be_hashed_and_nobody_tells_who_they_are(
    installation: tuple[Path, dict[str, str]], answers: Answers
) -> None:
    answers.json.pop("/v1/queue")
    answers.json.pop("/api/v1/pods")
    file = installation[0] / "bundle.tar.gz"
    told = run(installation, "support-bundle", "--hash-users", "--output", str(file))
    assert told.returncode == 1
    assert not file.exists()
    assert "nothing is written: users are to be hashed, and nobody tells who they are" in told.stderr
    assert "the queue does not tell them" in told.stderr
    assert "stamps of pods" in told.stderr
    assert run(installation, "support-bundle", "--output", str(file)).returncode == 0


def test_status_tells_what_it_knows_and_says_what_is_wrong(
    installation: tuple[Path, dict[str, str]],
) -> None:
    told = run(installation, "status")
    assert told.returncode == 1
    words = " ".join(told.stdout.split())
    assert "Queue default: 1 waiting (longest " in words
    assert "2 running on 50 % of the capacity" in words
    assert "Placing    asked 3 times" in told.stdout
    assert "alice" in told.stdout
    assert "TROUBLE recorder: The experience store cannot be written" in told.stdout
    assert "Telemetry  no Prometheus is configured" in told.stdout
    plain = json.loads(run(installation, "status", "-o", "json").stdout)
    assert plain["ok"] is False
    assert plain["queue"]["waiting"] == 1
    assert {"recorder", "Prometheus"} <= {one["part"] for one in plain["trouble"]}
