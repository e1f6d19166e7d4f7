"""Whether a container engine can be had here, and if not, what is missing: in one sentence.

Nothing is started or changed: `fairlane e2e --check` asks this before anything that takes minutes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from testbed.kind.docker import PACKAGES, Docker

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Without these dockerd can neither make networks nor mount a container's file system."""
FREE_BYTES_MIN = 15e9
"""What images and nodes take where nothing was built yet."""


def why_none(docker: Docker) -> str:
    """What stops a container engine from being had; empty when one answers or can be started."""
    if docker.answers:
        return ""
    if os.geteuid() != 0:
        return "no Docker answers, and only root can start one: start Docker, or run this as root"
    return (
        _no_program() or _no_right() or no_cgroups(Path("/proc/self/mounts").read_text()) or _no_room(docker)
    )


def _no_program() -> str:
    if shutil.which("dockerd") is None and shutil.which("apt-get") is None:
        return "dockerd is not installed, and without apt-get we cannot install " + ", ".join(PACKAGES)
    return ""


def _no_right() -> str:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "root is only mapped here (a user namespace), so dockerd cannot mount: use a virtual machine"
    return missing_capabilities(Path("/proc/self/status").read_text())


def missing_capabilities(status: str) -> str:
    """What /proc/self/status tells of the rights that dockerd needs; empty when they are there."""
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    missing = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if not missing:
        return ""
    return f"root lacks {' and '.join(missing)}: a container must be started with --privileged"


def no_cgroups(mounts: str) -> str:
    """What /proc/self/mounts tells of the cgroup file systems; empty when they can be written to."""
    rows = [line.split() for line in mounts.splitlines()]
    found = [row[3].split(",") for row in rows if row[2] in ("cgroup", "cgroup2")]
    if any("rw" in options for options in found):
        return ""
    state = "read-only" if found else "not mounted"
    return f"the cgroup file systems are {state}: a container must be started with --privileged"


def _no_room(docker: Docker) -> str:
    if docker.has_data:
        return ""
    there = next(folder for folder in (docker.folder, *docker.folder.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free >= FREE_BYTES_MIN:
        return ""
    return f"{there} has {free / 1e9:.0f} GB left and images need {FREE_BYTES_MIN / 1e9:.0f} GB"
