"""`fairlane doctor` as a user runs it, against answers over real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from canned_prometheus import CannedPrometheus

pytestmark = pytest.mark.integration
INLINE = {
    "name": "own",
    "newest": "load",
    "node_label": "source",
    "interval": 15,
    "install": "Install the exporter of our own.",
    "readings": {
        "cpu_use": {"expr": "load"},
        "memory_available": {"expr": "load"},
        "network_receive": {"expr": "load"},
        "network_transmit": {"expr": "load"},
        "rtt": {"expr": "pairs", "newest": "pairs"},
        "throughput": {"expr": "speed", "newest": "pairs"},
    },
}


@dataclass
class Answers:
    """A little HTTP server: path -> JSON; it stands for the API server, the extender and the recorder.

    `token`: what /v1/queue is told for only, as the controller's.
    """

    json: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    token: str = ""

    def handler(answers) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?", maxsplit=1)[0]
                found = answers.json.get(path)
                status = 404 if found is None else 200
                wanted = f"Bearer {answers.token}" if answers.token and path == "/v1/queue" else None
                if wanted and self.headers.get("Authorization") != wanted:
                    status, found = 401, {"error": "the bearer token is missing"}
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def node(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    }


@contextmanager
def answering(json: dict[str, Any]) -> Iterator[Answers]:
    made = Answers(json)
    server = ThreadingHTTPServer(("127.0.0.1", 0), made.handler())
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def answers() -> Iterator[Answers]:
    told = {
        "/api/v1/nodes": {"metadata": {}, "items": [node("n0"), node("n1")]},
        "/api/v1/pods": {"metadata": {}, "items": []},
        "/v1/status": {
            "unready": "",
            "calls": 3,
            "last_call_s": time.time(),
            "tables": 1,
            "rows": {"decisions": 3},
        },
    }
    with answering(told) as made:
        yield made


@pytest.fixture
def prometheus() -> Iterator[CannedPrometheus]:
    with CannedPrometheus() as canned:
        nodes = [{"source": "n0"}, {"source": "n1"}]
        pairs = [{"source": "n0", "target": "n1"}, {"source": "n1", "target": "n0"}]
        canned.series = {
            "load": [(labels, 0.5) for labels in nodes],
            "timestamp(load)": [(labels, lambda t: t - 1) for labels in nodes],
            "pairs": [(labels, 0.001) for labels in pairs],
            "speed": [(labels, 1e6) for labels in pairs],
            "timestamp(pairs)": [(labels, lambda t: t - 1) for labels in pairs],
            "vector(15)": [({}, 15.0)],
        }
        yield canned


def kubeconfig(folder: Path, url: str) -> str:
    path = folder / "kubeconfig"
    named = {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}]}
    context = {"contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"}
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **named, **context}))
    return str(path)


def doctor(
    folder: Path, url: str, prometheus_url: str, *options: str, **more: object
) -> subprocess.CompletedProcess[str]:
    settings: dict[str, object] = {
        "kubeconfig": kubeconfig(folder, url),
        "prometheus": {"url": prometheus_url, "timeout_s": 20},
        "sources": [INLINE],
        "extender_url": url,
        "recorder_url": url,
        **more,
    }
    config = folder / "fairlane.yaml"
    config.write_text(yaml.safe_dump(settings))
    program = [str(Path(sys.executable).with_name("fairlane")), "doctor", "--config", str(config), *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FAIRLANE_")}
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=150, check=False)


def test_a_sound_installation_is_told_so(
    answers: Answers, prometheus: CannedPrometheus, tmp_path: Path
) -> None:
    told = doctor(tmp_path, answers.url, prometheus.url)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "All is well." in told.stdout
    assert "kube-scheduler asked the extender 3 times" in told.stdout
    assert "2/2 nodes" in told.stdout
    assert "2/2 pairs" in told.stdout


def test_of_two_replicas_those_are_heard_that_lead(
    answers: Answers, prometheus: CannedPrometheus, tmp_path: Path
) -> None:
    """The other kube-scheduler asks its own extender; behind their Service either controller may answer."""
    lease = "/apis/coordination.k8s.io/v1/namespaces/fairlane-system/leases/fairlane-scheduler"
    answers.json[lease] = {"spec": {"holderIdentity": "fairlane-scheduler-b_0a1b"}}
    quiet = {"last_call_s": None, "calls": 0, "host": "fairlane-scheduler-a"}
    answers.json["/v1/status"] |= {**quiet, "choices_unasked": 7, "last_choice_unasked_s": time.time()}
    leader = {"leads": True, "identity": "c-b", "releases": 12, "invariant_failures": 2}
    with answering({"/v1/status": leader}) as leading:
        standing_by = {"leads": False, "leader": "c-b", "leader_url": leading.url, "releases": 0}
        with answering({"/v1/status": standing_by, "/v1/queue": {}}) as service:
            more = {"controller_url": service.url, "controller": {"namespace": "fairlane-system"}}
            told = doctor(tmp_path, answers.url, prometheus.url, "-o", "json", **more)
    sentences = [one["sentence"] for one in json.loads(told.stdout)["findings"]]
    assert "c-b leads the queue and has released 12 gangs." in sentences
    assert any("contradicted itself 2 times" in one for one in sentences)
    assert any("in fairlane-scheduler-b, which leads" in one for one in sentences)
    assert not any("without asking" in one for one in sentences)


def test_who_may_list_nodes_but_no_pods_is_told_of_the_nodes(
    answers: Answers, prometheus: CannedPrometheus, tmp_path: Path
) -> None:
    del answers.json["/api/v1/pods"]
    told = doctor(tmp_path, answers.url, prometheus.url)
    assert told.returncode == 1
    assert "The API server tells 2 nodes, but not of pods: 404" in " ".join(told.stdout.split())
    assert "2/2 nodes" in told.stdout


def test_json_is_for_machines(answers: Answers, prometheus: CannedPrometheus, tmp_path: Path) -> None:
    del prometheus.series["pairs"], prometheus.series["timestamp(pairs)"]
    told = doctor(tmp_path, answers.url, prometheus.url, "-o", "json")
    plain = json.loads(told.stdout)
    assert told.returncode == 1
    assert not plain["ok"]
    problems = [finding for finding in plain["findings"] if finding["level"] == "problem"]
    assert any("not known for any of the pairs" in finding["sentence"] for finding in problems)


def test_with_everything_down_every_cause_is_named(tmp_path: Path) -> None:
    told = doctor(tmp_path, "http://127.0.0.1:9", "http://127.0.0.1:9")
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    for part in ("API server:", "Prometheus:", "extender:", "recorder:"):
        assert f"PROBLEM {part}" in told.stdout


def test_settings_that_cannot_be_used_are_exit_code_2(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("epoc_s: 3")
    program = [str(Path(sys.executable).with_name("fairlane")), "doctor", "--config", str(config)]
    told = subprocess.run(program, capture_output=True, text=True, timeout=150, check=False)
    assert told.returncode == 2
    assert "did you mean epoch_s?" in told.stderr
