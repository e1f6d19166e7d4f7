"""What the commands print where terminals, locales, proxies and answers are not as we would have them."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from scheduler.edge.controller_client import ControllerClient, ControllerError

SHARES = {"weight": 1.0, "entitled": 0.5, "held": 0.5, "received": 3.0, "received_share": 0.5}
QUEUE = {
    "queue": "default",
    "paused": False,
    "complaints": ["the FairQueue »default« has no weight of Jürgen"],
    "flows": [{"user": "jürgen", **SHARES, "running": 1, "waiting": 0}],
    "gangs": [],
    "waiting": 0,
}
TOLD = json.dumps(QUEUE).encode()
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(TOLD), TOLD)
NO_HTTP = b"SSH-2.0-OpenSSH_9.6\r\n"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"
HALF_REFUSED = b"HTTP/1.1 503 Away\r\nContent-Length: 100000\r\n\r\nno"


class _Says(socketserver.ThreadingTCPServer):
    answer, heard = FINE, b""


class _Handler(socketserver.StreamRequestHandler):
    server: _Says

    def handle(self) -> None:
        while (line := self.rfile.readline()).strip():
            self.server.heard += line
        self.wfile.write(self.server.answer)


@pytest.fixture
def controller() -> Iterator[_Says]:
    with _Says(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def url_of(server: _Says) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def ran(words: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, since encodings are settled at its start."""
    return subprocess.run(
        [sys.executable, "-m", "scheduler.cli.main", *words],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


def queue(server: _Says, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return ran(["queue", "--controller", url_of(server), *words], **environment)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding: str, controller: _Says) -> None:
    told = queue(controller, "-o", "json", PYTHONIOENCODING=encoding)
    assert (told.returncode, told.stderr) == (0, b"")
    assert json.loads(told.stdout.decode(encoding)) == QUEUE


def test_words_that_the_terminal_has_no_letters_for_are_written_with_others(controller: _Says) -> None:
    told = queue(controller, PYTHONIOENCODING="ascii")
    assert (told.returncode, told.stderr) == (0, b"")
    assert rb"j\xfcrgen" in told.stdout


def test_names_with_colons_are_written_as_they_are(controller: _Says) -> None:
    told = {**QUEUE, "complaints": ["nobody is called github:package:bob"]}
    told["flows"] = [{"user": "oidc:key:alice", **SHARES, "running": 1, "waiting": 0}]
    content = json.dumps(told).encode()
    controller.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)
    shown = queue(controller).stdout.decode()
    assert "oidc:key:alice" in shown
    assert "github:package:bob" in shown


def test_json_has_no_colours_where_they_are_asked_for(controller: _Says) -> None:
    told = queue(controller, "-o", "json", FORCE_COLOR="1")
    assert json.loads(told.stdout) == QUEUE


def test_the_controller_is_asked_past_the_proxies_of_the_environment(
    controller: _Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert ControllerClient(url_of(controller), "token").queue() == QUEUE


@pytest.mark.parametrize("answer", [NO_HTTP, HALF, HALF_REFUSED], ids=["no HTTP", "half", "half refused"])
def test_an_answer_that_is_none_is_told_in_a_sentence(answer: bytes, controller: _Says) -> None:
    controller.answer = answer
    with pytest.raises(ControllerError, match="the controller"):
        ControllerClient(url_of(controller)).queue()


@pytest.mark.parametrize("url", ["http://localhost:port", "http://a b"])
def test_an_address_that_is_none_is_told_in_a_sentence(url: str) -> None:
    with pytest.raises(ControllerError, match="cannot be reached"):
        ControllerClient(url).queue()


def test_a_token_that_no_header_can_have_is_not_repeated() -> None:
    with pytest.raises(ControllerError) as raised:
        ControllerClient("http://127.0.0.1:1", "supersecret\nmore").queue()
    assert "supersecret" not in str(raised.value)


def test_training_asks_with_the_token_without_the_white_space_around_it(controller: _Says) -> None:
    ended = ran(["train", "--recorder", url_of(controller)], FAIRLANE_TOKEN="shared\n")
    assert ended.returncode != 0  # what answers is no recorder
    assert b"authorization: bearer shared\r\n" in controller.heard.lower(), ended.stderr
