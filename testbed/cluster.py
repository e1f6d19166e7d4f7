"""A local cluster from real components, as a Python object.

    with Cluster(Options(nodes=12)) as cluster:
        ...                                  # KUBECONFIG=cluster.kubeconfig
        cluster.process("predictor").kill()
        cluster.process("predictor").restart()

Real are etcd, the API server, the controller manager, both schedulers,
Prometheus and all of Fairlane. Simulated are the nodes (KWOK), their network
and how long pods run (testbed.physics).
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType

import yaml

from testbed import binaries, configuration, nodes
from testbed.control import Control, Spec, State, TestbedError, launch
from testbed.folder import OPTIONS_FILE, claim, end
from testbed.layout import MARKER, OPTIONAL, PORTS, Layout, Options, read_options, write_options
from testbed.processes import specs
from testbed.progress import Progress
from testbed.readiness import is_ready

READY_S_MAX = 90.0
LOG_TAIL_LINES = 15
CORE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
"""Programs that every testbed needs."""


class Process:
    """One process of a testbed. Killing it is a fault; stopping it is not."""

    def __init__(self, cluster: Cluster, spec: Spec) -> None:
        self.spec = spec
        self._cluster = cluster

    @property
    def name(self) -> str:
        """Its name in `fairlane testbed status`."""
        return self.spec.name

    @property
    def state(self) -> State | None:
        """What the supervisor knows; None if it was never started."""
        return next((one for one in self._cluster.control.status() if one.name == self.name), None)

    @property
    def pid(self) -> int | None:
        """Its process id; None while it does not run."""
        state = self.state
        return None if state is None else state.pid

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it is ready."""
        self._cluster.control.start(self.spec)
        if wait:
            self.wait_ready()

    def stop(self) -> None:
        """End it in good order."""
        self._cluster.control.stop(self.name)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Its state is then `died`."""
        self._cluster.control.signal(self.name, signal.SIGKILL)
        self._await(lambda: self.pid is None, "end", 10.0)

    def restart(self) -> None:
        """End it if it runs, and start it again."""
        if self.state is not None:
            self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing, as a hung process does."""
        self._cluster.control.signal(self.name, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        self._cluster.control.signal(self.name, signal.SIGCONT)

    def wait_ready(self, within_s: float = READY_S_MAX) -> None:
        """Wait until it answers.

        Raises:
            TestbedError: it ended, or was not ready in time; the message has its last log lines.
        """
        self._await(lambda: is_ready(self.name, self._cluster.layout), "become ready", within_s)

    def wait_ended(self, within_s: float = READY_S_MAX) -> int:
        """Wait until it ends by itself; its exit code (negative: the signal that ended it)."""
        self._await(lambda: self.pid is None, "end", within_s)
        state = self.state
        return -1 if state is None or state.exit_code is None else state.exit_code

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of its log, or that there are none."""
        try:
            kept = self.spec.log.read_text(errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            kept = []
        return "\n".join(kept) or "(it logged nothing)"

    def check(self) -> None:
        """Raise TestbedError if it ended without being asked to."""
        state = self.state
        if state is not None and state.state == "died":
            raise TestbedError(
                f"{self.name} ended by itself ({_exit(state.exit_code)}); "
                f"the end of its log:\n{self.log_tail()}"
            )

    def _await(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        deadline_s = time.monotonic() + within_s
        while not condition():
            if what != "end":
                self.check()
            if time.monotonic() > deadline_s:
                raise TestbedError(
                    f"{self.name} did not {what} within {within_s:.0f} s; "
                    f"the end of its log:\n{self.log_tail()}"
                )
            time.sleep(0.05)


class Cluster:
    """A testbed of one's own (`with Cluster(...)`), or one that runs already (`Cluster.attach`)."""

    def __init__(
        self,
        options: Options | None = None,
        directory: Path | None = None,
        progress: Progress | None = None,
        keep_files: bool = False,
    ) -> None:
        self.options = options or Options()
        self.directory = (directory or Path(tempfile.mkdtemp(prefix="fairlane-"))).resolve()
        self.control = Control(self.directory)
        self.layout = Layout(self.directory, {}, {})
        self._progress = progress or Progress(quiet=True)
        self._keep_files = keep_files
        self._mark = secrets.token_hex(8)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._specs: dict[str, Spec] = {}

    @classmethod
    def attach(cls, directory: Path) -> Cluster:
        """The testbed that runs in `directory`.

        Raises:
            TestbedError: there is none.
        """
        if not (directory / MARKER).exists():
            raise TestbedError(f"no testbed is up in {directory}: start one with `fairlane testbed up`")
        options, mark = read_options(directory / OPTIONS_FILE)
        known = json.loads((directory / MARKER).read_text())
        cluster = cls(options, directory)
        cluster._mark = mark
        programs = {name: Path(path) for name, path in known["binaries"].items()}
        cluster._use(Layout(cluster.directory, known["ports"], programs))
        cluster.control.status()  # raises when nothing runs
        return cluster

    def __enter__(self) -> Cluster:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator."""
        return self.layout.file("admin.kubeconfig")

    @property
    def settings_file(self) -> Path:
        """Settings of Fairlane's processes, also for `fairlane doctor --config`."""
        return self.layout.file("fairlane.yaml")

    @property
    def prometheus_url(self) -> str:
        """Base URL of Prometheus."""
        return self.layout.url("prometheus")

    @property
    def extender_url(self) -> str:
        """Base URL of the extender."""
        return self.layout.url("extender")

    @property
    def worker_names(self) -> list[str]:
        """Nodes that pods can run on."""
        return nodes.worker_names(self.options)

    @property
    def data_node_names(self) -> list[str]:
        """Nodes that hold the jobs' input, one per site."""
        return nodes.data_node_names(self.options)

    @property
    def processes(self) -> list[Process]:
        """All processes, whether they were started or left out."""
        return [Process(self, spec) for spec in self._specs.values()]

    def process(self, name: str) -> Process:
        """The process of that name.

        Raises:
            TestbedError: there is none of that name.
        """
        if name not in self._specs:
            raise TestbedError(f"no process {name!r}; there are: {', '.join(self._specs)}")
        return Process(self, self._specs[name])

    def run(self, name: str, *argv: str, env: dict[str, str] | None = None) -> Process:
        """Start a further process under the testbed's supervision, e.g. a load generator."""
        spec = Spec(name, argv, self.layout.log(name), tuple((env or {}).items()), grace_s=2.0)
        self._specs[name] = spec
        process = Process(self, spec)
        process.start()
        return process

    def up(self) -> None:
        """Bring everything up; on any failure everything is taken down again.

        Raises:
            TestbedError: with the process that failed and the end of its log.
        """
        programs = binaries.ensure(self._programs(), self._progress)
        folder = claim(self.directory)
        try:
            write_options(self.directory / OPTIONS_FILE, self.options, self._mark)
            self._supervisor = launch(self.directory, self._mark, folder)
            ports = dict(zip(PORTS, self.control.ports(len(PORTS)), strict=True))
            self._use(Layout(self.directory, ports, programs))
            self._configure()
            self._start_everything()
            self._write_marker()
        except BaseException:
            self.down()
            raise
        finally:
            os.close(folder)

    def detach(self) -> None:
        """Let the testbed outlive this process; `down` ends it."""
        self.control.detach()

    def down(self) -> None:
        """End all processes and remove the files."""
        end(self.directory, self._mark, self._keep_files)
        if self._supervisor is not None:
            self._supervisor.wait()

    def _programs(self) -> list[str]:
        return [*CORE, *(["prometheus"] if self.options.wants("prometheus") else [])]

    def _use(self, layout: Layout) -> None:
        self.layout = layout
        self._specs = specs(self.options, layout)

    def _configure(self) -> None:
        from testbed.credentials import write_credentials  # slow to import, and only `up` needs it

        write_credentials(self.directory, self.layout.url("apiserver", "https"))
        prometheus = json.loads(self.layout.file("prometheus.kubeconfig").read_text())
        token = self.layout.file("prometheus.token")
        token.touch(mode=0o600)
        token.write_text(prometheus["users"][0]["user"]["token"])
        default = configuration.scheduler_config(self.options, self.layout, ours=False)
        hints = configuration.writes_hints(self.options)
        ours = configuration.scheduler_config(self.options, self.layout, ours=True, hints=hints)
        settings = configuration.fairlane_settings(self.options, self.layout, secrets.token_hex(16))
        files = {
            "kube-scheduler.yaml": default,
            "fairlane-scheduler.yaml": ours,
            "prometheus.yaml": configuration.prometheus_config(self.options, self.layout),
            "fairlane.yaml": settings,
        }
        for name, content in files.items():
            self.layout.file(name).touch(mode=0o600)
            self.layout.file(name).write_text(yaml.safe_dump(content, sort_keys=False))

    def _start_everything(self) -> None:
        wanted = [self.process(name) for name in self._specs if self._is_wanted(name)]
        by_name = {process.name: process for process in wanted}
        for name in ("etcd", "prometheus"):
            if name in by_name:
                by_name.pop(name).start(wait=False)
        self.process("etcd").wait_ready()
        by_name["kube-apiserver"].start(wait=False)
        from testbed import population  # takes seconds, as the API server does

        by_name.pop("kube-apiserver").wait_ready()
        self._progress.say("the API server is up")
        for process in by_name.values():
            process.start(wait=False)
        self._create_nodes(population)
        for process in wanted:
            process.wait_ready()
        self._progress.say(f"ready: {', '.join(process.name for process in wanted)}")

    def _create_nodes(self, population: ModuleType) -> None:
        wanted = nodes.nodes(self.options)
        with self._progress.task("starting nodes", total=len(wanted), unit="ready") as task:
            population.run(population.populate(str(self.kubeconfig), wanted, task, self._check_nodes))
        self._progress.say(f"{len(wanted):,} nodes are ready")

    def _check_nodes(self) -> None:
        for name in ("kube-apiserver", "kube-controller-manager", "kwok"):
            self.process(name).check()

    def _is_wanted(self, name: str) -> bool:
        return name not in OPTIONAL or self.options.wants(name)

    def _write_marker(self) -> None:
        """testbed.json: what other programs need to use this testbed."""
        pids = {one.name: one.pid for one in self.control.status()}
        content = {
            "kubeconfig": str(self.kubeconfig),
            "settings": str(self.settings_file),
            "prometheus_url": self.prometheus_url,
            "extender_port": self.layout.ports["extender"],
            "truth_file": str(self.layout.file("truth.jsonl")),
            "workers": self.worker_names,
            "data_nodes": self.data_node_names,
            "ports": dict(self.layout.ports),
            "binaries": {name: str(path) for name, path in self.layout.binaries.items()},
            "pids": pids,
        }
        partial = self.directory / f".{MARKER}"
        partial.write_text(json.dumps(content, indent=2))
        partial.rename(self.directory / MARKER)


def _exit(code: int | None) -> str:
    if code is None:
        return "still ending"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
