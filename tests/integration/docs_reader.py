"""A reader of the docs: a shell in a folder like the project's, and the files that he would have himself."""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from docs_blocks import ROOT, Block

from testbed import binaries
from testbed.progress import Progress

PATIENCE_S = 900
ENDLESS = re.compile(r"\b(port-forward|logs .*--follow)\b")
"""What goes on until it is interrupted: it must say something first."""
FIRST_WORD_S = 60.0
TELLS_BY_ITS_EXIT_CODE = re.compile(r"[^\n]*fairlane (doctor|status|support-bundle)\b[^\n]*")
"""1 is an answer as well: there is trouble; of a bundle 3: something could not be had."""
EXEC_SAYS_1 = re.compile(
    r"^error: Internal error occurred: .*: fairlane (doctor|status)\b.*: exit status 1$", re.M
)
"""How KWOK passes that on from a container."""
REFUSED = re.compile(r"^(error:|Error from server|Error:|Traceback)|\"error\"", re.M)


@dataclass
class Reader:
    """A shell in a folder like the project's, in which what a block exports stays for the next one.

    `instead`: what the reader puts in the place of words that stand for his own. `before` and `after` are
    told each command of a block that is followed.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None
    going_on: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, text: str) -> str:
        """Run commands as bash does; all they print.

        Fails where one of them ends with an error.
        """
        script = f"set -euo pipefail; trap 'env -0 > .environment' EXIT\n{text}\n"
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        told = TELLS_BY_ITS_EXIT_CODE.fullmatch(text)
        fine = (0,) if told is None else (0, 3 if told[1] == "support-bundle" else 1)
        assert ended.returncode in fine, f"{text}\n{ended.stdout}"
        kept = (self.folder / ".environment").read_bytes().split(b"\0")
        self.environment = dict(one.decode().split("=", 1) for one in kept if one)
        return ended.stdout

    def follow(self, text: str) -> str:
        """Run the commands of a block one by one; what goes on by itself goes on until the block is done."""
        said = ""
        try:
            for command in self._put_in(text).replace("\\\n", " ").splitlines():
                self.before(command)
                told = self._begin(command) if ENDLESS.search(command) else self.run(command)
                assert not REFUSED.search(EXEC_SAYS_1.sub("", told)), f"{command}\n{told}"
                self.after(command)
                said += told
        finally:
            while self.going_on:
                one = self.going_on.pop()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGTERM)
                one.wait(timeout=30)
        return said

    def _put_in(self, text: str) -> str:
        for word, own in self.instead.items():
            text = re.sub(rf"(?<![\w]){re.escape(word)}(?![\w])", own, text)
        return text

    def _begin(self, command: str) -> str:
        """Start what goes on by itself, and wait for its first word."""
        words = self.folder / ".words"
        with words.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.going_on.append(process)
        deadline_s = time.monotonic() + FIRST_WORD_S
        while not words.read_text():
            assert time.monotonic() < deadline_s, f"{command}: silent for {FIRST_WORD_S:.0f} s"
            assert process.poll() is None, f"{command}: ended with {process.returncode} and said nothing"
            time.sleep(0.1)
        time.sleep(0.5)
        said = words.read_text()
        assert not process.poll(), f"{command}\n{said}"
        return said

    def save(self, block: Block) -> None:
        """What the reader is told to save."""
        (self.folder / block.more).write_text(block.text)


def reader_in(folder: Path, *programs: str, **environment: str) -> Reader:
    """A folder that has all of the project's, and a PATH with `fairlane`, kubectl and further programs."""
    for one in ROOT.iterdir():
        if one.name not in ("reports", ".venv", ".git"):
            (folder / one.name).symlink_to(one)
    (folder / ".venv").symlink_to(sys.prefix)
    there = folder / "programs"
    there.mkdir()
    for name, program in binaries.ensure(["kubectl", *programs], Progress(quiet=True)).items():
        (there / name).symlink_to(program)
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), str(there), os.environ["PATH"]])
    given = {**os.environ, "PATH": path, "COLUMNS": "200", "PYTHONPATH": str(ROOT), **environment}
    _own_files(folder)
    return Reader(folder, given)


def _own_files(folder: Path) -> None:
    """What the pages call yours: runs with their times, and jobs as traces have them."""
    draw = random.Random(7)
    runs = [_run(draw, number) for number in range(240)]
    _table(folder / "runs.csv", runs)
    jobs = [_job(draw, number) for number in range(40)]
    _table(folder / "jobs.csv", jobs)
    _table(folder / "nodes.csv", [{"cpu": "16", "memory": "64Gi", "gpu": 0, "count": 4}])
    lines = [
        f"{number} {job['submitted_s']} 0 {job['duration_s']} {job['pods']} -1 -1 {job['pods']} -1 -1 1 "
        f"{number % 3} 1 1 1 1 -1 -1"
        for number, job in enumerate(jobs, 1)
    ]
    for name in ("trace.swf.gz", "jobs.swf.gz"):
        with gzip.open(folder / name, "wt") as file:
            file.write("\n".join(lines) + "\n")


def _run(draw: random.Random, number: int) -> dict[str, object]:
    gigabytes, kind = draw.uniform(1, 20), draw.choice(["small", "large", "wide", "old", "new"])
    seconds = 5 + gigabytes * {"small": 4, "large": 1, "wide": 2, "old": 5, "new": 0.8}[kind]
    seconds *= draw.lognormvariate(0, 0.1)
    return {
        "run_s": round(seconds, 2),
        "ended_at": 1_700_000_000 + 60 * number,
        "job_class": draw.choice(["etl", "report"]),
        "vm_type": kind,
        "input_gb": round(gigabytes, 2),
    }


def _job(draw: random.Random, number: int) -> dict[str, object]:
    user = ("alice", "bob", "carol")[number % 3]
    at = {"user": user, "submitted_s": 5 * number, "pods": draw.randint(1, 4)}
    return {**at, "cpu": 1, "memory": "1Gi", "gpu": 0, "duration_s": draw.randint(10, 60)}


def _table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
