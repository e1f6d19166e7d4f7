"""Where and with what a benchmark ran: a figure without it cannot be compared with another."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "fairlane",
    "lightgbm",
    "numpy",
    "msgspec",
    "uvicorn",
    "uvloop",
    "grpcio",
    "prometheus-api-client",
)
ROOT = Path(__file__).parent.parent


def provenance(programs: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Time, commit, versions and machine; of `programs` (name: path) what they say of themselves."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=all")),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "programs": {name: _said(path) for name, path in (programs or {}).items()},
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Cores, processor, memory and how busy the machine is now."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def cpu_s(pid: int, with_children: bool = True) -> float:
    """CPU time of the process, and of its children, also those that have ended, in s; 0 once it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    ticks = sum(int(field) for field in fields[11 : 15 if with_children else 13])
    living_s = sum(cpu_s(child) for child in (children(pid) if with_children else ()))
    return ticks / os.sysconf("SC_CLK_TCK") + living_s


def children(pid: int) -> list[int]:
    """What the threads of the process have started and what still runs; none once it is gone."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(one) for thread in threads for one in (thread / "children").read_text().split()]
    except OSError:
        return []


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """A field of /proc/PID/status, in MiB; 0 once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    kib = next((line.split()[1] for line in lines if line.startswith(f"{field}:")), "0")
    return int(kib) / 1024.0


def busy_s() -> float:
    """CPU time that the whole machine has used since it started, in seconds."""
    with Path("/proc/stat").open() as lines:
        user, nice, system, _idle, _wait, irq, soft = (int(part) for part in lines.readline().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _git(*arguments: str) -> str:
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _said(program: Path) -> str:
    """The first line of `program --version`."""
    try:
        told = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter((told.stdout or told.stderr).splitlines()), "")


def _field(path: str, name: str) -> str:
    with Path(path).open() as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
