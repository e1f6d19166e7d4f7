"""`fairlane support-bundle` and `fairlane status` as a user runs them, with secrets planted everywhere."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
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
from typer.testing import CliRunner

from scheduler.cli import support_bundle as command
from scheduler.cli.support_bundle import INCOMPLETE
from scheduler.config import Settings
from scheduler.edge import support
from scheduler.edge.support_bundle import Bundle

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
        f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs": {"metadata": {"continue": "more"}, "items": []},
        "/apis/fairlane.dev/v1alpha1/fairqueues": {
            "metadata": {},
            "items": [{"spec": {"weights": [{"user": "zoe", "weight": 2}]}}],
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
    assert told.returncode == INCOMPLETE, told.stderr
    assert re.fullmatch(r"fairlane support-bundle: [0-9]+ could not be had: .*left-out.txt.*\n", told.stderr)
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
    assert "cluster/jobs.json: all but the first 500" in left_out


@pytest.mark.parametrize(("lacks", "code"), [([], 0), (["logs/a.log: no answer in time"], INCOMPLETE)])
def test_its_exit_code_says_whether_all_is_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacks: list[str], code: int
) -> None:
    async def gathered(*_asked: object) -> support.Gathered:
        return support.Gathered(Bundle({"settings.json": "{}"}, lacks))

    monkeypatch.setattr(command, "_gathered", gathered)
    ended = CliRunner().invoke(command.app, ["--output", str(tmp_path / "bundle.tar.gz")])
    assert (ended.exit_code, (tmp_path / "bundle.tar.gz").exists()) == (code, True)


CHECKPOINT = f"/api/v1/namespaces/{NAMESPACE}/configmaps/fairlane-controller"
SOURCES = ("weight", "status", "stamp", "behalf", "space", "received", "by-hand", "used", "setting")
"""Where users are named; each is named after his own."""


@pytest.fixture
def mute(installation: tuple[Path, dict[str, str]], answers: Answers) -> tuple[Path, dict[str, str]]:
    """The same installation, whose queue does not answer; users are named elsewhere, each once."""
    del answers.json["/v1/queue"]
    queue = {"spec": {"flowKey": "Namespace", "weights": [{"user": "weight"}]}}
    queue["status"] = {"flows": [{"user": "status"}]}
    stamps = {"fairlane.dev/user": "stamp", "fairlane.dev/on-behalf-of": "behalf"}
    pod = {"metadata": {"name": "p", "namespace": "space", "annotations": stamps}}
    core = {"ended": [], "received": [[["default", "received"], 3.0]], "weights": []}
    state = {"version": 1, "at_s": 1.0, "paused": False, "weights": {"by-hand": 2.0}, "core": core}
    state["usage"] = {"since_s": 0.0, "seen_s": 0.0, "rows": [[0.0, 86400.0, "used", *[0] * 10, {}]]}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    kept = {"metadata": {}, "data": {"pieces": "1", "slot": "a"}, "binaryData": {"state": packed}}
    log = f"/api/v1/namespaces/{NAMESPACE}/pods/fairlane-0/log"
    answers.json |= {
        "/apis/fairlane.dev/v1alpha1/fairqueues": {"metadata": {}, "items": [queue]},
        "/api/v1/pods": {"metadata": {}, "items": [pod]},
        CHECKPOINT: kept,
        log: "".join(f"job of the user {source} was lost\n" for source in SOURCES),
    }
    settings = yaml.safe_load((installation[0] / "fairlane.yaml").read_text())
    settings["controller"] = {"weights": {"setting": 2}}
    (installation[0] / "fairlane.yaml").write_text(yaml.safe_dump(settings))
    return installation


def log_and_left_out(file: Path) -> tuple[str, str]:
    """Of a bundle."""
    with tarfile.open(file) as archive:
        names = ("logs/fairlane-0-extender.log", "left-out.txt")
        log, left_out = (archive.extractfile(f"fairlane-support/{name}") for name in names)
        assert log is not None
        assert left_out is not None
        return log.read().decode(), left_out.read().decode()


def test_users_are_hashed_by_all_that_names_them_though_the_queue_does_not_answer(
    mute: tuple[Path, dict[str, str]],
) -> None:
    file = mute[0] / "bundle.tar.gz"
    words = ("support-bundle", "--namespace", NAMESPACE, "--output", str(file))
    assert run(mute, *words).returncode == INCOMPLETE
    log, _ = log_and_left_out(file)
    assert [source for source in SOURCES if f" {source} " not in log] == []
    told = run(mute, *words, "--hash-users")
    assert told.returncode == INCOMPLETE, told.stderr
    log, left_out = log_and_left_out(file)
    assert [source for source in SOURCES if f" {source} " in log] == []
    assert log.count("job of the user user-") == len(SOURCES)
    assert "names of users by the queue: it does not tell them" in left_out


@pytest.mark.parametrize(
    ("path", "source"), [("/api/v1/pods", "stamps of pods"), (CHECKPOINT, "the checkpoint")]
)
def test_nothing_is_written_when_users_are_to_be_hashed_and_some_may_be_unknown(
    mute: tuple[Path, dict[str, str]], answers: Answers, path: str, source: str
) -> None:
    del answers.json[path]
    file = mute[0] / "bundle.tar.gz"
    told = run(mute, "support-bundle", "--hash-users", "--output", str(file))
    assert told.returncode == 1
    assert not file.exists()
    assert "nothing is written: users are to be hashed, and it is not known who they all are" in told.stderr
    assert f"names of users by {source}: " in told.stderr


async def test_who_never_answers_does_not_hold_up_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "ALL_S", 0.5)
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    begun_s = time.monotonic()
    gathered = await support.gather_bundle(Settings(kubeconfig=kubeconfig(tmp_path, url)), "", True)
    assert time.monotonic() - begun_s < 10
    assert "everything else: it was not there after 0.5 s" in gathered.bundle.left_out
    assert not gathered.users.known
    assert "settings.json" in gathered.bundle.files
    silent.close()


def test_users_that_only_the_queue_tells_are_enough(
    installation: tuple[Path, dict[str, str]], answers: Answers
) -> None:
    del answers.json["/apis/fairlane.dev/v1alpha1/fairqueues"]
    file = installation[0] / "bundle.tar.gz"
    assert run(installation, "support-bundle", "--hash-users", "--output", str(file)).returncode == INCOMPLETE
    log, left_out = log_and_left_out(file)
    assert "by user-" in log
    assert "names of users by the checkpoint: " in left_out


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
    assert "Telemetry  no Prometheus is read" in told.stdout
    plain = json.loads(run(installation, "status", "-o", "json").stdout)
    assert plain["ok"] is False
    assert plain["queue"]["waiting"] == 1
    assert {"recorder", "Prometheus"} <= {one["part"] for one in plain["trouble"]}


async def test_an_address_that_shows_a_page_instead_of_objects_is_said_in_the_bundle(tmp_path: Path) -> None:
    """As a login in front of the API server does."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\n<html>Log</html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(page, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    gathered = await support.gather_bundle(Settings(kubeconfig=kubeconfig(tmp_path, url)), "", True)
    assert any(line.startswith("cluster/pods.json: the answer is no") for line in gathered.bundle.left_out)
    assert "settings.json" in gathered.bundle.files
    server.close()
