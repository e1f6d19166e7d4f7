"""Competing traffic on one node's link: keeps a number of readers busy, as a file tells.

    traffic.py CONTROL SOURCE...

CONTROL holds one line "READERS"; it is read again four times a second. Each reader
reads from one SOURCE (host:port) after the other without end.
"""

from __future__ import annotations

import sys
import threading
import time
import urllib.request
from pathlib import Path

CHUNK_BYTES = 256 * 1024
REQUEST_BYTES = 1 << 30
POLL_S = 0.25


class Reader(threading.Thread):
    """Reads until told to stop."""

    def __init__(self, source: str) -> None:
        super().__init__(daemon=True)
        self.source = source
        self.stopped = threading.Event()

    def run(self) -> None:
        """Ask again after each end or error."""
        while not self.stopped.is_set():
            try:
                self._read()
            except OSError as error:
                print(f"{self.source}: {error}", flush=True)
                time.sleep(1.0)

    def _read(self) -> None:
        with urllib.request.urlopen(f"http://{self.source}/bytes/{REQUEST_BYTES}", timeout=30) as answer:
            while not self.stopped.is_set() and answer.read(CHUNK_BYTES):
                pass


def wanted(control: Path) -> int:
    """Readers asked for; none while the file is missing."""
    try:
        return int(control.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def main() -> None:
    """Follow the file."""
    control, sources = Path(sys.argv[1]), sys.argv[2:]
    readers: list[Reader] = []
    while True:
        count = wanted(control)
        while len(readers) < count:
            readers.append(Reader(sources[len(readers) % len(sources)]))
            readers[-1].start()
        while len(readers) > count:
            readers.pop().stopped.set()
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
