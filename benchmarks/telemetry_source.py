"""A server that answers the poller's range queries as Prometheus would, from generated values.

    python -m benchmarks.telemetry_source --nodes 500 --sites 3 --port 9090

Answers are rendered once per grid and kept; only their timestamps change, so
that serving them takes next to nothing from the cores that are measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated
from urllib.parse import parse_qs, urlparse

import msgspec
import numpy as np
import typer

from benchmarks.readings import INTERVAL_S, MEASURED_AT, Series, all_series
from scheduler.edge.yielding import add_niceness
from testbed.layout import Options
from testbed.nodes import data_node_names, worker_names

NICENESS = 10
WOBBLE = 0.05
"""Values move by this share of themselves over the steps of a grid."""
PLACEHOLDER = "@{:08d}@"
"""Stands for a timestamp in a kept answer; as long as one."""


class Answers:
    """Range queries answered from `series`."""

    def __init__(self, series: Mapping[str, Series]) -> None:
        self._series = series
        self._kept: dict[tuple[str, int], bytes] = {}

    def range(self, query: str, start_s: float, end_s: float, step_s: float) -> bytes:
        """The body of the answer to `query` on the grid from `start_s` to `end_s`."""
        steps = int((end_s - start_s) / step_s) + 1
        times = [round(start_s + step * step_s) for step in range(steps)]
        if query.startswith("vector("):
            return _body([{"metric": {}, "values": [[t, query[7:-1]] for t in times]}])
        if query in (MEASURED_AT, f"timestamp({MEASURED_AT})"):
            return _body([self._measured(labels, times) for labels in self._everybody()])
        if query not in self._series:
            return _body([])
        body = self._template(query, steps)
        for step, at_s in enumerate(times):
            body = body.replace(PLACEHOLDER.format(step).encode(), str(at_s).encode())
        return body

    def _everybody(self) -> list[Mapping[str, str]]:
        return [labels for labels in next(iter(self._series.values())).labels if "target" not in labels]

    @staticmethod
    def _measured(labels: Mapping[str, str], times: list[int]) -> dict[str, object]:
        return {"metric": labels, "values": [[t, str(t - t % INTERVAL_S)] for t in times]}

    def _template(self, query: str, steps: int) -> bytes:
        kept = self._kept.get((query, steps))
        return (
            kept if kept is not None else self._kept.setdefault((query, steps), self._rendered(query, steps))
        )

    def _rendered(self, query: str, steps: int) -> bytes:
        series = self._series[query]
        moves = 1 + WOBBLE * np.sin(np.arange(steps) + np.arange(len(series.values))[:, None])
        values = series.values[:, None] * moves
        marks = [PLACEHOLDER.format(step) for step in range(steps)]
        rows = [
            {
                "metric": labels,
                "values": [[mark, f"{value:.6g}"] for mark, value in zip(marks, row, strict=True)],
            }
            for labels, row in zip(series.labels, values.tolist(), strict=True)
        ]
        body = _body(rows)
        for mark in marks:  # a timestamp is a number, not a string
            body = body.replace(f'"{mark}"'.encode(), mark.encode())
        return body


def _body(result: object) -> bytes:
    return msgspec.json.encode({"status": "success", "data": {"resultType": "matrix", "result": result}})


def handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    """GET /api/v1/query (the server's time) and /api/v1/query_range."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one write

        def do_GET(self) -> None:
            url = urlparse(self.path)
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            if url.path.endswith("/query_range"):
                grid = (float(asked[name]) for name in ("start", "end", "step"))
                body = answers.range(asked["query"], *grid)
            else:
                now_s = time.time()
                body = _body([now_s, str(now_s)])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing of each request."""

    return Handler


def main(
    nodes: Annotated[int, typer.Option()],
    port: Annotated[int, typer.Option()],
    sites: Annotated[int, typer.Option()] = 3,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Serve generated telemetry of a testbed's nodes until killed; Prometheus would have other cores."""
    add_niceness(NICENESS)
    options = Options(nodes=nodes, sites=sites)
    answers = Answers(all_series(worker_names(options), data_node_names(options), seed))
    server = ThreadingHTTPServer(("127.0.0.1", port), handler(answers))
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    typer.run(main)
