"""uvicorn as our processes use it: bounded in time and size before the app sees a request.

uvicorn waits for ever for the head of a request, however slow and long; here a
head that is not complete in time is answered 408 and one that is too long 431,
so that a stuck or hostile client costs a closed connection and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import ssl
from asyncio.events import TimerHandle
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import HANDLED_SIGNALS

from model.address import place_of
from scheduler.settings_section import EVERYWHERE

HEAD_BYTES_MAX = 64 * 1024
HEAD_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 512
KEEP_ALIVE_S = 120.0
LINGER_S = 2.0
"""What an ended client sends is dropped for so long, so that it gets the answer (RFC 9112, 9.6)."""
GRACEFUL_S = 5
"""What was begun may be answered for so long after the end was asked for."""


class WholeAnswers(asyncio.Transport):
    """A transport that sends the head of an answer together with its body: one write, one packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or keep if it is the head of an answer; what follows it sends both."""
        if not self._head and data[:9] == b"HTTP/1.1 " and data[9:12] != b"100":
            self._head = bytes(data)
        else:
            self._transport.write(self._head + bytes(data))
            self._head = b""

    def flush(self) -> None:
        """Send a head whose answer has no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send what is kept and close."""
        self.flush()
        self._transport.close()

    def end_of_answers(self) -> None:
        """Say that nothing more comes, where the transport can do that without closing; TLS cannot."""
        self.flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """True once the connection is being closed."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport below knows."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Take no more requests for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take requests again."""
        self._transport.resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections whose request head is too slow or too long; answers in one write."""

    _head_bytes = 0
    _head_timer: TimerHandle | None = None
    _linger: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected; its first request may take as long as any later one."""
        super().connection_made(WholeAnswers(transport))
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_timer()
        if self._linger is not None:
            self._linger.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request, or of several."""
        while data and not self._is_ended() and not self.transport.is_closing():
            data = self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        """Parse no more than a head may have left, in however many pieces it comes; the bytes beyond that."""
        if self._head_timer is None and self._awaits_head():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)
        if self._head_timer is None:
            super().data_received(data)
            return b""
        room = HEAD_BYTES_MAX - self._head_bytes
        if room == 0:
            self._end(b"431 Request Header Fields Too Large", f"the head exceeds {HEAD_BYTES_MAX} bytes")
            return b""
        piece = data[:room]
        self._head_bytes += len(piece)
        super().data_received(piece)
        return data[room:]

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._stop_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The app has answered."""
        if isinstance(self.transport, WholeAnswers):
            self.transport.flush()
        super().on_response_complete()

    def _awaits_head(self) -> bool:
        """No request is under way."""
        return self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)

    def _is_ended(self) -> bool:
        """It was answered for the last time."""
        return self._linger is not None

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer, self._head_bytes = None, 0

    def _too_slow(self) -> None:
        self._end(b"408 Request Timeout", f"the head was not complete after {HEAD_TIMEOUT_S:g} s")

    def _end(self, status: bytes, why: str) -> None:
        self._stop_timer()
        if not isinstance(self.transport, WholeAnswers) or self.transport.is_closing():
            return
        body = b'{"error":"%s"}' % why.encode()
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d" % (status, len(body))
        self.transport.write(head + b"\r\nconnection: close\r\n\r\n" + body)
        # closed while the client still sends, the kernel would take the answer back from it
        self.transport.end_of_answers()
        self._linger = self.loop.call_later(LINGER_S, self.transport.close)


class Server(uvicorn.Server):
    """Tells its port once it listens: in `port`, and in a file where one is asked for.

    A process has one server that ends by `signals`; others beside it leave them alone.
    """

    def __init__(self, config: uvicorn.Config, port_file: Path | None, signals: bool = True) -> None:
        super().__init__(config)
        self._port_file = port_file
        self._signals = signals
        self.port = 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn, but SIGTERM is not raised again afterwards: what was begun ends in good order."""
        if not self._signals:
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if signal.SIGINT in self._captured_signals:
            raise KeyboardInterrupt

    async def serve_beside(self, listening: socket.socket, work: Coroutine[Any, Any, None]) -> None:
        """Serve until told to end, or until the `work` of the process has ended, whose errors are raised."""
        background = asyncio.create_task(work)
        background.add_done_callback(lambda _task: setattr(self, "should_exit", True))
        try:
            await self.serve([listening])
        finally:
            background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await background

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell the port."""
        await super().startup(sockets)
        if sockets:
            self.port = sockets[0].getsockname()[1]
        if self.started and self._port_file is not None:
            write_whole(self._port_file, f"{self.port}\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file that no reader ever sees half written."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def new_server(
    app: Any,
    keep_alive_s: float = KEEP_ALIVE_S,
    port_file: Path | None = None,
    tls: ssl.SSLContext | None = None,
    connections_max: int = CONNECTIONS_MAX,
    protocol: Callable[..., BoundedProtocol] = BoundedProtocol,
    signals: bool = True,
) -> Server:
    """A server for the ASGI `app`: uvloop and httptools, no access log, no chatty headers.

    With `tls` it speaks HTTPS; who holds the context may change the certificate in it at any time.
    """
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # whatever makes one
        ws="none",
        loop="uvloop",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=round(keep_alive_s),
        timeout_graceful_shutdown=GRACEFUL_S,
        limit_concurrency=connections_max,
    )
    config.load()
    config.ssl = tls
    return Server(config, port_file, signals)


def is_loopback(host: str) -> bool:
    """True when nobody but this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address, to be listened on; port 0 picks a free one.

    `EVERYWHERE` is every address of the machine, IPv6 and IPv4; of IPv4 alone where the kernel has no IPv6.

    Raises:
        OSError: the address is taken or not ours; the message names it.
    """
    try:
        return _bound(host, port)
    except OSError as error:
        if host == EVERYWHERE and error.errno in _NO_IPV6:
            return listen("0.0.0.0", port)
        raise OSError(error.errno, f"cannot listen on {place_of(host, port)}: {error.strerror}") from error


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == EVERYWHERE:  # whatever the machine's default is
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
        bound.set_inheritable(False)
    except OSError:
        bound.close()
        raise
    return bound


def plain_address(host: str) -> str:
    """An address of a peer as people write it: IPv4 also where a socket of both told it."""
    return host.removeprefix("::ffff:")
