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

FUTURES_LEAST, FUTURES_MOST = 10, 100
CPU_S_MOST = 5.0
"""For one outlook, once it has the fewest futures."""
SEED = 20_201
"""The same for each photograph: what changes between two outlooks is the queue and not the luck."""


class Inbox:
    """Keeps the newest message from a stream, read by a thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._newest: bytes | None = None
        self._changed = threading.Condition()
        self._over = False
        threading.Thread(target=self._read, name="photographs", daemon=True).start()

    def take(self) -> bytes | None:
        """The newest message, as soon as there is one; None when no more can come."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._over)
            message, self._newest = self._newest, None
            return None if self._over else message

    @property
    def has_news(self) -> bool:
        """True when a message waits, or the stream is over."""
        return self._newest is not None or self._over

    def _read(self) -> None:
        while len(head := self._stream.read(LENGTH.size)) == LENGTH.size:
            (size,) = LENGTH.unpack(head)
            message = self._stream.read(size)
            if len(message) < size:
                break
            with self._changed:
                self._newest = message
                self._changed.notify()
        with self._changed:
            self._over = True
            self._changed.notify()


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
    """Answer photographs until stdin ends."""
    os.nice(19)
    inbox = Inbox(sys.stdin.buffer)
    while (message := inbox.take()) is not None:
        photo, past = pickle.loads(message)
        answer = pickle.dumps(outlook_of(photo, past, inbox, share))
        sys.stdout.buffer.write(LENGTH.pack(len(answer)) + answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
