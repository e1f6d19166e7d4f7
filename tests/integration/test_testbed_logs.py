"""A process that never stops talking fills no disk, and what it said last is still there."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from testbed.cluster import Cluster
from testbed.logs import LOG_BYTES_MAX, BoundedLog

SAY = "print('up', flush=True); import time; time.sleep(60)"
TALK = "import sys\nfor n in range(int(sys.argv[1])): print(f'{n:07d} ' + 'x' * 190)\nprint('the last word')"
LINE_BYTES = 199


def test_a_log_is_cut_at_its_old_end_and_says_so(cluster: Cluster) -> None:
    lines = int(2.2 * LOG_BYTES_MAX / LINE_BYTES)
    talker = cluster.run("talker", sys.executable, "-c", TALK, str(lines))
    assert talker.wait_ended() == 0
    kept = talker.spec.log.read_text().splitlines()
    assert LOG_BYTES_MAX / 2 - LINE_BYTES < talker.spec.log.stat().st_size <= LOG_BYTES_MAX + LINE_BYTES
    assert kept[-1] == talker.log_tail(1) == "the last word"
    numbers = [int(line.split()[0]) for line in kept[1:-1]]
    assert numbers == list(range(numbers[0], lines))  # whole lines, and none is missing after the cut
    assert kept[0] == f"[cut here: {numbers[0] * LINE_BYTES:,} older bytes of this log are gone]"


def test_the_log_of_a_process_that_runs_is_read_at_once(cluster: Cluster) -> None:
    talker = cluster.run(
        "early", sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"
    )
    deadline_s = time.monotonic() + 30
    while "up" not in talker.log_tail():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    talker.stop()
    talker.start()  # and the next run of it goes on in the same log
    talker.kill()
    assert set(talker.log_tail().splitlines()) == {"up"}


def test_what_could_not_be_written_is_told_when_it_can_be(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "small.log")
    log.write(b"before\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # as a full disk does
    try:
        log.write(b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.write(b"after\n")
    told = (tmp_path / "small.log").read_text()
    assert told.startswith("before\nxxx")
    assert told.endswith("\n[100 bytes could not be written here]\nafter\n")
