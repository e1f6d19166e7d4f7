"""The container engine: the one that answers already, or a dockerd of our own.

Our own has its socket, data and pid under the cache folder, so that it cannot
meet another one, and is stopped by its pid. Where the machine may not use
CAP_SYS_RESOURCE, runcwrap stands in front of runc (testbed/go/node). What it leaves
in the host's network when it ends is taken away (leftovers.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.kind import leftovers
from testbed.kind.shell import CommandError, run, succeeds

Say = Callable[[str], None]

PACKAGES = ("docker.io", "debootstrap", "iptables")
PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Docker must find the containerd that it was packaged with, not the newer one built for the nodes."""
START_S_MAX = 60.0
STOP_S_MAX = 60.0
PROCESSES = 8
"""All containers live in one cgroup, which has the weight of a single process unless it is told otherwise."""
CPU_WEIGHTS = {"cpu/docker/cpu.shares": 1024 * PROCESSES, "docker/cpu.weight": 100 * PROCESSES}
"""File below /sys/fs/cgroup (version 1, version 2) -> value."""


class Docker:
    """One engine; `env` is what docker and kind need to reach it."""

    def __init__(self, folder: Path, binaries: Path, say: Say) -> None:
        self.folder = folder / "engine"
        self.binaries = binaries
        self.say = say
        self._socket = f"unix://{self.folder}/docker.sock"
        self._own: bool | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """Environment of every docker and kind command."""
        if self._own is None:
            self._own = self._answers(self._own_env()) or not self._answers({})
        return self._own_env() if self._own else {}

    @property
    def answers(self) -> bool:
        """True when an engine answers now."""
        return shutil.which("docker") is not None and self._answers(self.env)

    @property
    def has_data(self) -> bool:
        """True when our own engine has run before: its images need no further room."""
        return (self.folder / "data").exists()

    def install(self) -> None:
        """Install Docker from Debian where it is missing; raises `CommandError` where that is not allowed."""
        if shutil.which("docker") is not None and (shutil.which("dockerd") or self._answers({})):
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise CommandError(
                "Docker is missing: install it (Debian: apt-get install " + " ".join(PACKAGES) + ")"
            )
        self.say("installing " + ", ".join(PACKAGES))
        apt = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], env=apt)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], env=apt)

    def start(self) -> None:
        """Make sure an engine answers."""
        if not self._answers(self.env):
            self._start_own()

    def stop(self) -> None:
        """Stop the engine if it is our own and put the host's network back; another one is left as it is."""
        pid = self._pid()
        if pid is not None:
            self._end(pid)
        leftovers.put_back(self.folder / "run")

    def _end(self, pid: int) -> None:
        self._remove_networks()
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S_MAX
        while leftovers.is_dockerd(pid):
            if time.monotonic() > deadline:
                raise CommandError(f"dockerd {pid} did not end within {STOP_S_MAX:.0f} s: end it by hand")
            time.sleep(0.2)
        (self.folder / "dockerd.pid").unlink(missing_ok=True)
        self.say(f"dockerd {pid} stopped")

    def _remove_networks(self) -> None:
        """kind keeps its network, and with it a bridge, for a next cluster."""
        succeeds(["docker", "network", "prune", "--force"], env=self._own_env())

    def weigh(self) -> None:
        """Let the containers of our own engine count as PROCESSES processes, not as one."""
        if self._pid() is None:
            return
        for name, value in CPU_WEIGHTS.items():
            file = Path("/sys/fs/cgroup") / name
            if file.parent.parent.exists():
                file.parent.mkdir(exist_ok=True)  # before the first container, too
            if file.exists():
                file.write_text(str(value))

    def run(self, *words: str, stdin: str | None = None, timeout_s: float = 600.0) -> str:
        """Standard output of `docker WORDS`."""
        return run(["docker", *words], stdin=stdin, env=self.env, timeout_s=timeout_s)

    def has_image(self, tag: str) -> bool:
        """True when the engine holds the image."""
        return succeeds(["docker", "image", "inspect", tag], env=self.env)

    def _own_env(self) -> dict[str, str]:
        return {"DOCKER_HOST": self._socket, "DOCKER_BUILDKIT": "0"}

    def _answers(self, env: Mapping[str, str]) -> bool:
        return succeeds(["docker", "version"], env=env, timeout_s=20)

    def _pid(self) -> int | None:
        try:
            pid = int((self.folder / "dockerd.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if leftovers.is_dockerd(pid) else None

    def _start_own(self) -> None:
        if os.geteuid() != 0:
            raise CommandError(
                "no container engine answers: start Docker, or run as root to let us start one"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        leftovers.remember()
        config = self.folder / "daemon.json"
        config.write_text(json.dumps(self._daemon_config(), indent=1))
        with (self.folder / "dockerd.log").open("ab") as log:
            subprocess.Popen(
                ["dockerd", "--config-file", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": PLAIN_PATH},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S_MAX
        while not self._answers(self._own_env()):
            if time.monotonic() > deadline:
                raise CommandError(f"dockerd did not start: see {self.folder}/dockerd.log")
            time.sleep(0.3)
        self.say("dockerd " + self.run("version", "--format", "{{.Server.Version}}").strip() + " started")

    def _daemon_config(self) -> dict[str, object]:
        config: dict[str, object] = {
            "hosts": [self._socket],
            "pidfile": str(self.folder / "dockerd.pid"),
            "data-root": str(self.folder / "data"),
            "exec-root": str(self.folder / "run"),
            "storage-driver": "overlay2",
            # kind makes its own network and builds use the host's
            "bridge": "none",
            "log-opts": {"max-size": "10m", "max-file": "2"},
        }
        wrapper = self.binaries / "runcwrap-host"
        if wrapper.exists() and not _may_use_sys_resource():
            config["runtimes"] = {"runcwrap": {"path": str(wrapper)}}
            config["default-runtime"] = "runcwrap"
        return config


def _may_use_sys_resource() -> bool:
    sys_resource = 24
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) >> sys_resource & 1)
    return True
