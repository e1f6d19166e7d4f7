"""Objects with large arrays from one process of ours to another, without holding up the threads of either.

pickle alone copies arrays into one string and out of it again, and no other thread
of the process runs meanwhile. Here they travel beside it (PEP 574), each by one
system call, and others run.
"""

from __future__ import annotations

import os
import pickle
import socket
from multiprocessing.connection import Connection
from typing import Any

import numpy as np


def send(to: Connection, what: Any) -> None:
    """Hand over `what`, to be taken by `receive`.

    Raises:
        OSError: the other side is gone.
    """
    arrays: list[pickle.PickleBuffer] = []
    plain = pickle.dumps(what, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    to.send_bytes(pickle.dumps(([view.nbytes for view in views], plain)))
    with _stream(to) as stream:
        for view in views:
            stream.sendall(view)


def receive(source: Connection) -> Any:
    """The next object that the other side sends; waits for it.

    Raises:
        EOFError, OSError: the other side is gone.
    """
    sizes, plain = pickle.loads(source.recv_bytes())
    arrays = [np.empty(size, dtype=np.uint8) for size in sizes]
    with _stream(source) as stream:
        for array in arrays:
            if stream.recv_into(array.data, len(array), socket.MSG_WAITALL) < len(array):
                raise EOFError
    return pickle.loads(plain, buffers=arrays)


def _stream(connection: Connection) -> socket.socket:
    """The socket that a two-way pipe is; with a name of its own for it, which is closed after use."""
    return socket.socket(fileno=os.dup(connection.fileno()))
