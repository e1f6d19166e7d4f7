"""A trial that is told to end leaves nothing behind, as when `helm test` runs out of its time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration


class ApiServer(ThreadingHTTPServer):
    """It takes pods, gates them, and opens no gate."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pods: set[str] = set()
        self.were_looked_at = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["metadata"]["name"]
        self.server.pods.add(name)
        self._pod(name)

    def do_GET(self) -> None:
        self.server.were_looked_at.set()
        self._pod(self.path.rpartition("/")[2])

    def do_DELETE(self) -> None:
        self.server.pods.discard(self.path.rpartition("/")[2])
        self._tell({})

    def _pod(self, name: str) -> None:
        gates = [{"name": "fairlane.dev/queue"}]
        metadata = {"name": name, "annotations": {"fairlane.dev/user": "me"}}
        self._tell({"metadata": metadata, "spec": {"schedulingGates": gates}})

    def _tell(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_its_pods_are_removed(sign: signal.Signals, server: ApiServer, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    told = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {"token": "t"}}]}
    kubeconfig.write_text(yaml.safe_dump({"current-context": "c", **told}))
    words = ["trial", "--kubeconfig", str(kubeconfig)]
    # a suite that runs in the background of a shell ignores SIGINT, and so would its children
    command = ["env", "--default-signal=INT", sys.executable, "-m", "scheduler.cli.main", *words]
    trial = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert server.were_looked_at.wait(30)
    assert len(server.pods) > 0
    trial.send_signal(sign)
    _, complaint = trial.communicate(timeout=30)
    assert (server.pods, trial.returncode) == (set(), 128 + sign)
    assert b"Traceback" not in complaint
