"""What kube-scheduler and the extender say to each other, heard on loopback.

The kernel dates every packet, so nothing stands in the way of a call, and whoever
listens may wait for a processor without recording that as the extender's. A
pass-through would cost a tenth of a millisecond, and wake up in the middle of a
request, which kube-scheduler writes in two pieces: on two cores it was then
interrupted for up to two milliseconds, and that looked like a late answer.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from testbed.control import TestbedError

KEPT_REQUESTS = 256
_IPV4, _TCP, _SYN = 0x0800, 6, 2
_ROOM_BYTES = 256 << 20
"""For what was not read yet: a burst at 5,000 nodes is 60 MB."""
_PACKET_BYTES = 1 << 17
_SO_RCVBUFFORCE, _SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 33, 26, 35
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_QUIET_S = 0.3


@dataclass
class Heard:
    """Calls in order: s from a request's first byte to the last one of its answer. The newest requests."""

    durations_s: list[float] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    def add(self, request: bytes, duration_s: float) -> None:
        """One call."""
        self.durations_s.append(duration_s)
        self.requests = [*self.requests[-KEPT_REQUESTS + 1 :], request]


@dataclass
class _Call:
    """A request as far as it came, and when the last byte of its answer was heard."""

    begun_s: float
    request: bytes = b""
    answered_s: float = 0.0


@dataclass
class Conversations:
    """Puts the packets of all connections to one port together."""

    port: int
    heard: Heard
    _open: dict[int, _Call] = field(default_factory=dict)
    _next: dict[tuple[int, int], int] = field(default_factory=dict)

    def take(self, packet: bytes, at_s: float) -> None:
        """One IPv4 packet.

        Raises:
            TestbedError: one before it was missed.
        """
        start = (packet[0] & 15) * 4
        source, destination, number = struct.unpack_from("!HHI", packet, start)
        if packet[start + 13] & _SYN:  # the number of a port may be used again by another connection
            self._next[source, destination] = (number + 1) & 0xFFFFFFFF
            self._end(source)
        said = packet[start + (packet[start + 12] >> 4) * 4 : struct.unpack_from("!H", packet, 2)[0]]
        if not said or self._is_repeated((source, destination), number, len(said)):
            return
        if destination != self.port:
            if destination in self._open:
                self._open[destination].answered_s = at_s
            return
        if source not in self._open or self._open[source].answered_s:
            self._end(source)
            self._open[source] = _Call(at_s)
        self._open[source].request += said

    def end(self) -> None:
        """Nothing more is said."""
        for source in list(self._open):
            self._end(source)

    def _end(self, source: int) -> None:
        call = self._open.pop(source, None)
        if call is not None and call.answered_s and call.request.startswith(b"POST "):
            self.heard.add(call.request, call.answered_s - call.begun_s)

    def _is_repeated(self, way: tuple[int, int], number: int, size: int) -> bool:
        expected = self._next.get(way, number)
        ahead = (number - expected) & 0xFFFFFFFF
        if 0 < ahead < 1 << 31:
            raise TestbedError("not every packet was heard: the machine is too busy to measure calls on it")
        if ahead == 0:
            self._next[way] = (number + size) & 0xFFFFFFFF
        return ahead != 0


@contextmanager
def listening(port: int) -> Iterator[Heard]:
    """Hear every call to the port of loopback until the block ends; complete only then.

    Raises:
        TestbedError: this is not allowed here, or packets were missed.
    """
    heard = Heard()
    with _opened(port) as ear:
        stop = threading.Event()
        failures: list[TestbedError] = []
        thread = threading.Thread(target=_listen, args=(ear, Conversations(port, heard), stop, failures))
        thread.start()
        try:
            yield heard
        finally:
            stop.set()
            thread.join()
    if failures:
        raise failures[0]


def _listen(
    ear: socket.socket, said: Conversations, stop: threading.Event, failures: list[TestbedError]
) -> None:
    while True:
        try:
            packet, about, _flags, _address = ear.recvmsg(_PACKET_BYTES, 128)
            seconds, ns = struct.unpack("qq", about[0][2])
            said.take(packet, seconds + ns / 1e9)
        except TimeoutError:
            if stop.is_set():
                return said.end()
        except TestbedError as error:
            failures.append(error)
            return None


def require_ears() -> None:
    """Find out before anything is started.

    Raises:
        TestbedError: listening is not allowed here.
    """
    _opened(0).close()


def _opened(port: int) -> socket.socket:
    try:
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    except PermissionError as error:
        raise TestbedError(
            "calls of kube-scheduler are timed by their packets on loopback, which only root may see"
            " (CAP_NET_RAW): run this as root, or with sudo"
        ) from error
    ear.settimeout(_QUIET_S)
    program = _only(port)
    code = ctypes.create_string_buffer(program)
    attached = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    ear.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
    ear.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    ear.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    ear.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE if os.geteuid() == 0 else socket.SO_RCVBUF, _ROOM_BYTES)
    ear.bind(("lo", _IPV4))
    return ear


def _only(port: int) -> bytes:
    """A classic BPF program that takes TCP packets from or to the port, and leaves all others alone."""
    steps = (
        (0x30, 0, 0, 9),  # the protocol
        (0x15, 0, 6, _TCP),
        (0xB1, 0, 0, 0),  # how long the IP head is
        (0x48, 0, 0, 0),  # the source's port
        (0x15, 2, 0, port),
        (0x48, 0, 0, 2),  # the destination's port
        (0x15, 0, 1, port),
        (0x06, 0, 0, _PACKET_BYTES),
        (0x06, 0, 0, 0),
    )
    return b"".join(struct.pack("HBBI", *step) for step in steps)
