"""The transfer job: reads INPUT_BYTES from SOURCE and does a little work on them.

What it says, one JSON line, is also its termination message, so that it can be read from the pod's status.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.request
from pathlib import Path

CHUNK_BYTES = 256 * 1024


def fetch(url: str) -> tuple[int, str]:
    """Bytes read and the digest of them, which is the job's little work."""
    total = hashlib.sha256()
    count = 0
    with urllib.request.urlopen(url, timeout=60) as answer:
        while chunk := answer.read(CHUNK_BYTES):
            total.update(chunk)
            count += len(chunk)
    return count, total.hexdigest()


def main() -> None:
    """Fetch once and say how long it took."""
    wanted = int(os.environ["INPUT_BYTES"])
    started_s = time.monotonic()
    count, digest = fetch(f"http://{os.environ['SOURCE']}/bytes/{wanted}")
    if count != wanted:
        raise SystemExit(f"{count} of {wanted} bytes came")
    seconds = time.monotonic() - started_s
    line = json.dumps({"bytes": count, "seconds": round(seconds, 3), "digest": digest[:12]})
    Path("/dev/termination-log").write_text(line)
    print(line)


if __name__ == "__main__":
    main()
