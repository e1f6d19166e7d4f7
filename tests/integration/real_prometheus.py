"""A real Prometheus on a free port, and small exporters for it to scrape."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from testbed.binaries import PROGRAMS, locate
from testbed.ports import Reservation


def binary(name: str) -> str | None:
    """The program called `name`, as a testbed would find it, or from PATH; None if there is none."""
    found = locate(PROGRAMS[name]) if name in PROGRAMS else None
    return str(found) if found else shutil.which(name)


def eventually(condition: Callable[[], bool], timeout_s: float = 40.0, every_s: float = 0.3) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


class Exporter:
    """Serves `text()` on /metrics; `broken` makes it answer 500."""

    def __init__(self, text: Callable[[], str]) -> None:
        self.text = text
        self.broken = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(exporter) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.text().encode()
                self.send_response(500 if exporter.broken else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class RealPrometheus:
    """A Prometheus process that scrapes `targets` (address -> labels), and those of `jobs`, every second.

    `more` is added to its configuration, `flags` to its command line; `program` is one of testbed.binaries.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Mapping[str, str]],
        jobs: Sequence[Mapping[str, object]] = (),
        more: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
        program: str = "prometheus",
    ) -> None:
        self._folder, self._flags, self._name = folder, flags, program
        self._ports = Reservation()  # also while it is down: nobody else may answer in its place
        self.port = self._ports.take(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        static = [{"targets": [address], "labels": dict(labels)} for address, labels in targets.items()]
        job = {"job_name": "tests", "honor_labels": True, "static_configs": static}
        scraped = [*([job] if static else []), *jobs]
        self._config: dict[str, Any] = {"scrape_configs": scraped, **(more or {})}
        self._config["global"] = {
            **{"scrape_interval": "1s", "scrape_timeout": "1s"},
            **self._config.get("global", {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it answers unless told not to."""
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config))
        program = binary(self._name)
        assert program is not None
        arguments = [f"--config.file={config}", f"--storage.tsdb.path={self._folder}/data"]
        arguments += [f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"]
        self._process = subprocess.Popen([program, *arguments, *self._flags])
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        assert eventually(self._ready), "Prometheus did not become ready"

    def stop(self) -> None:
        """End it at once; its port and its data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._ports.close()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
