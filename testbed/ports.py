"""Ports that stay ours while nobody listens on them.

A port picked by binding to 0 and closing can be taken before the server it
was meant for listens, or while that server restarts. So the reserving socket
stays open, bound and not listening, with SO_REUSEADDR: Linux lets a server
that sets SO_REUSEADDR too (all of ours do) listen on the same port, but
neither a second reservation nor an outgoing connection gets it.
"""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


class Reservation:
    """Holds free ports of the loopback interface until closed."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self, count: int) -> list[int]:
        """Reserve `count` further ports."""
        taken = [_reserve() for _ in range(count)]
        self._sockets.extend(taken)
        return [int(one.getsockname()[1]) for one in taken]

    def close(self) -> None:
        """Give all ports back."""
        for one in self._sockets:
            one.close()
        self._sockets.clear()


def _reserve() -> socket.socket:
    """A socket bound to a port that nobody else has; binding comes first, because the kernel
    may hand out a port shared with another reservation when SO_REUSEADDR is already set."""
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.bind((HOST, 0))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return one
