"""The process that runs futures: photographs come on stdin, outlooks go out on stdout.

The newest photograph wins: an older one is left as soon as it has the fewest
futures that make an outlook. After each future it rests, so that over some
seconds it uses no more than its share of a core.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import threading
import time
from typing import BinaryIO

from scheduler.core.queue.arrivals import Past
from scheduler.core.queue.expected import Outlook, futures_of, outlook
from scheduler.core.queue.futures import Reach
from scheduler.core.queue.photograph import Photograph
from scheduler.edge.expected_starts import LENGTH
from scheduler.edge.yielding import add_niceness

FUTURES_LEAST, FUTURES_MOST = 10, 100
CPU_S_MOST = 5.0
"""For one outlook, once it has the fewest futures."""
SEED = 20_201
"""The same for each photograph: what changes between two outlooks is the queue and not the luck."""


class Inbox:
    """Keeps the newest message from a stream, read by a thread; at the end of the stream the process ends."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._newest: bytes | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="photographs", daemon=True).start()

    def take(self) -> bytes:
        """The newest message, as soon as there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None)
            message, self._newest = self._newest, None
            assert message is not None
            return message

    @property
    def has_news(self) -> bool:
        """True when a message waits."""
        return self._newest is not None

    def _read(self) -> None:
        while len(head := self._stream.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            message = self._stream.read(size)
            if len(message) < size:
                break
            with self._changed:
                self._newest = message
                self._changed.notify()
        os._exit(0)  # nobody is there any more who could be told anything


def outlook_of(photo: Photograph, past: Past | None, inbox: Inbox, share: float) -> Outlook:
    """An outlook from as many futures as time allows."""
    reaches: list[Reach] = []
    begun_s = time.process_time()
    futures = futures_of(photo, past, random.Random(SEED))
    while True:
        before_s = time.process_time()
        reaches.append(next(futures))
        now_s = time.process_time()
        time.sleep((now_s - before_s) * (1.0 / share - 1.0))
        enough = len(reaches) >= FUTURES_LEAST and (inbox.has_news or now_s - begun_s > CPU_S_MOST)
        if enough or len(reaches) >= FUTURES_MOST:
            return outlook(photo, reaches, arrivals=past is not None)


def main(share: float) -> None:
    """Answer photographs; ends with stdin."""
    add_niceness(19)
    inbox = Inbox(sys.stdin.buffer)
    while True:
        photo, past = pickle.loads(inbox.take())
        answer = pickle.dumps(outlook_of(photo, past, inbox, share))
        sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
