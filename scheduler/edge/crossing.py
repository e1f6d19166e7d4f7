"""Objects with large arrays from one process of ours to another, without holding up the threads of either.

pickle alone copies arrays into one string and out of it again, and no other thread
of the process runs meanwhile. Here they travel beside it (PEP 574), each by one
system call, and others run.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import socket
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any

import numpy as np


def send(to: Connection, what: Any) -> None:
    """Hand over `what`, to be taken by `receive`.

    Raises:
        OSError: the other side is gone.
    """
    arrays: list[pickle.PickleBuffer] = []
    plain = io.BytesIO()
    _Pickler(plain, protocol=5, buffer_callback=arrays.append).dump(what)
    views = [array.raw() for array in arrays]
    to.send_bytes(pickle.dumps(([view.nbytes for view in views], plain.getvalue())))
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


def _view(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)  # whose own name is none that pickle finds


def _copied(view: MappingProxyType[Any, Any]) -> tuple[Any, ...]:
    return _view, (dict(view),)


class _Pickler(pickle.Pickler):
    """Read-only views, of which snapshots and facts of nodes are full, cross as views of copies."""

    dispatch_table = copyreg.dispatch_table | {MappingProxyType: _copied}


def _stream(connection: Connection) -> socket.socket:
    """The socket that a two-way pipe is; with a name of its own for it, which is closed after use."""
    return socket.socket(fileno=os.dup(connection.fileno()))
