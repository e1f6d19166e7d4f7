"""`fairlane testbed`: a local cluster from real components, for trying and testing."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from testbed import binaries
from testbed.cluster import Cluster
from testbed.control import State, TestbedError
from testbed.folder import OPTIONS_FILE, end
from testbed.kind.shell import CommandError
from testbed.layout import OPTIONAL, Options, cache_folder, default_directory, duration_s, read_options
from testbed.progress import Progress

SHOWN_LOG_LINES = 5

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
console = Console(highlight=False, soft_wrap=True)

Folder = Annotated[
    Path | None,
    typer.Option("--dir", help="Folder of the testbed.", show_default="testbeds/default in the cache folder"),
]
Kind = Annotated[
    bool, typer.Option("--kind", help="A kind cluster with real kubelets and links instead; needs Docker.")
]
Json = Annotated[str, typer.Option("--output", "-o", help="table or json.")]


@app.callback()
def testbed() -> None:
    """A local cluster: real control plane, schedulers, Prometheus and Fairlane; simulated nodes.

    \b
    Examples:
      fairlane testbed up
      eval "$(fairlane testbed env)"
      fairlane testbed down
    """


@app.command()
def up(
    nodes: Annotated[int, typer.Option(help="Simulated nodes that pods can run on.")] = 12,
    sites: Annotated[int, typer.Option(help="Sites; each adds one data node.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the emulated world.")] = 1,
    directory: Folder = None,
    scrape_interval: Annotated[str, typer.Option(help="Of Prometheus, e.g. 2s.")] = "1s",
    lease_seconds: Annotated[
        int, typer.Option(help="Node lease; renewed every quarter. Hours for thousands of nodes.")
    ] = 40,
    without: Annotated[
        str, typer.Option(help=f"Processes to leave out, comma separated: {', '.join(OPTIONAL)}.")
    ] = "",
    foreground: Annotated[bool, typer.Option(help="Stay until interrupted, then take it down.")] = False,
    kind: Kind = False,
) -> None:
    """Bring a testbed up and leave it running.

    \b
    Examples:
      fairlane testbed up --nodes 30 --sites 5
      fairlane testbed up --dir /tmp/second --without physics,predictor,recorder,extender
      fairlane testbed up --nodes 5000 --lease-seconds 7200 --without prometheus,physics
      fairlane testbed up --kind
    """
    with _explained(), _interruptible():
        if kind:
            _up_on_kind()
            return
        options = Options(
            nodes=nodes,
            sites=sites,
            seed=seed,
            scrape_interval_s=duration_s(scrape_interval),
            lease_s=lease_seconds,
            without=tuple(name for name in without.replace(" ", "").split(",") if name),
        )
        progress = Progress()
        cluster = Cluster(options, directory or default_directory(), progress)
        cluster.up()
        if foreground:
            _stay(cluster, progress)
        else:
            cluster.detach()
            _say_how_to_use(cluster)


@app.command()
def down(
    directory: Folder = None,
    keep: Annotated[bool, typer.Option(help="Leave the files (logs, store, registry).")] = False,
    kind: Kind = False,
) -> None:
    """End a testbed: no process stays, and no file unless asked for.

    \b
    Examples:
      fairlane testbed down
      fairlane testbed down --keep
      fairlane testbed down --kind
    """
    with _explained():
        if kind:
            _down_on_kind()
            return
        folder = (directory or default_directory()).resolve()
        if not (folder / OPTIONS_FILE).exists():
            console.print(f"no testbed in {folder}")
            return
        end(folder, read_options(folder / OPTIONS_FILE)[1], keep)
        console.print(f"the testbed in {folder} is gone" + ("; its files are kept" if keep else ""))


@app.command()
def status(directory: Folder = None, output: Json = "table", kind: Kind = False) -> None:
    """Show the processes of a testbed, and the end of the log of each that died (then exit code 1).

    \b
    Examples:
      fairlane testbed status
      fairlane testbed status -o json
      fairlane testbed status --kind
    """
    with _explained():
        if kind:
            raise typer.Exit(_show_kind(output))
        cluster = Cluster.attach(directory or default_directory())
        states = cluster.control.status()
        if output == "json":
            console.print_json(json.dumps(_status_json(cluster, states)))
        else:
            _print_status(cluster, states)
    if any(state.state == "died" for state in states):
        raise typer.Exit(1)


@app.command()
def env(directory: Folder = None) -> None:
    """Print what a shell has to export so that kubectl and fairlane find the testbed.

    \b
    Example:
      eval "$(fairlane testbed env)"
    """
    with _explained():
        cluster = Cluster.attach(directory or default_directory())
    for name, value in (("KUBECONFIG", cluster.kubeconfig), ("FAIRLANE_CONFIG", cluster.settings_file)):
        print(f"export {name}={shlex.quote(str(value))}")


@app.command()
def logs(
    process: Annotated[str, typer.Argument(help="A process of `fairlane testbed status`.")],
    directory: Folder = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines to show.")] = 50,
) -> None:
    """Print the end of a process's log.

    \b
    Example:
      fairlane testbed logs extender -n 100
    """
    with _explained():
        console.print(
            Cluster.attach(directory or default_directory()).process(process).log_tail(lines), markup=False
        )


@app.command()
def restart(
    process: Annotated[str, typer.Argument(help="A process of `fairlane testbed status`.")],
    directory: Folder = None,
) -> None:
    """End a process if it runs, start it again and wait until it is ready.

    \b
    Example:
      fairlane testbed restart extender
    """
    with _explained():
        Cluster.attach(directory or default_directory()).process(process).restart()
        console.print(f"{process} is ready")


@app.command()
def programs(
    names: Annotated[list[str] | None, typer.Argument(help="Default: all that `up` needs.")] = None,
) -> None:
    """Find, or build once, the programs that a testbed runs, and print where they are.

    \b
    Examples:
      fairlane testbed programs
      FAIRLANE_BIN_DIR=/opt/kubernetes/bin fairlane testbed programs
      fairlane testbed programs kubectl helm
    """
    with _explained():
        wanted = names or [name for name in binaries.PROGRAMS if name not in binaries.ON_DEMAND]
        unknown = sorted(set(wanted) - set(binaries.PROGRAMS))
        if unknown:
            raise TestbedError(f"unknown: {', '.join(unknown)}; known: {', '.join(binaries.PROGRAMS)}")
        for name, path in binaries.ensure(wanted, Progress()).items():
            console.print(f"{name:<24} {path}")
        console.print(f"built programs are kept in {cache_folder()}")


@contextmanager
def _explained() -> Iterator[None]:
    """An error of the testbed is a message and exit code 1, not a trace."""
    try:
        yield
    except (TestbedError, binaries.BinaryError, CommandError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        raise typer.Exit(1) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP take the way of an interrupt, so that what was started is ended."""

    def interrupt(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    yield


def _up_on_kind() -> None:
    from testbed.kind import deploy, release
    from testbed.kind.cluster import KindCluster
    from testbed.kind.links import Links

    cluster = KindCluster(progress=Progress())
    cluster.up()
    deploy.surroundings(cluster)
    release.install(cluster)
    Links(cluster).install()
    console.print(f"\nexport KUBECONFIG={cluster.kubeconfig}\nPrometheus          {cluster.prometheus_url}")


def _down_on_kind() -> None:
    from testbed.kind.cluster import KindCluster

    KindCluster(progress=Progress()).down()
    console.print("the kind cluster is gone")


def _show_kind(output: str) -> int:
    """Print what runs in the kind cluster; the exit code: 1 where something is missing."""
    from testbed.kind.cluster import KindCluster
    from testbed.kind.state import parts

    cluster = KindCluster(progress=Progress())
    found = parts(cluster)
    if output == "json":
        told = {"kubeconfig": str(cluster.kubeconfig), "parts": [asdict(part) for part in found]}
        console.print_json(json.dumps(told))
    elif found:
        table = Table("part", "ready", "wanted", box=None, pad_edge=False)
        for part in found:
            table.add_row(part.name, str(part.ready), str(part.wanted))
        console.print(table)
        console.print(f"\nexport KUBECONFIG={cluster.kubeconfig}")
    else:
        console.print("no kind cluster is up: fairlane testbed up --kind")
    return int(not found or not all(part.complete for part in found))


def _stay(cluster: Cluster, progress: Progress) -> None:
    _say_how_to_use(cluster)
    console.print("interrupt (Ctrl-C) to take it down")
    try:
        while True:
            time.sleep(1.0)
            for process in cluster.processes:
                process.check()
    except KeyboardInterrupt:
        progress.say("taking the testbed down")
    finally:
        cluster.down()


def _say_how_to_use(cluster: Cluster) -> None:
    console.print(
        f"\nexport KUBECONFIG={cluster.kubeconfig}\n"
        f"Prometheus          {cluster.prometheus_url}\n"
        f"Fairlane's settings {cluster.settings_file}\n"
        "The nodes and their network are simulated; the control plane, both schedulers, Prometheus\n"
        "and Fairlane are real. Schedule a pod with ours by spec.schedulerName: fairlane."
    )


def _status_json(cluster: Cluster, states: list[State]) -> dict[str, object]:
    return {
        "directory": str(cluster.directory),
        "kubeconfig": str(cluster.kubeconfig),
        "settings": str(cluster.settings_file),
        "prometheus_url": cluster.prometheus_url,
        "extender_url": cluster.extender_url,
        "processes": [
            {**asdict(state), "log": str(state.log), "log_tail": _last_words(cluster, state)}
            for state in states
        ],
    }


def _last_words(cluster: Cluster, state: State) -> str | None:
    return cluster.process(state.name).log_tail(SHOWN_LOG_LINES) if state.state == "died" else None


def _print_status(cluster: Cluster, states: list[State]) -> None:
    table = Table("process", "state", "pid", "since", "starts", "exit", box=None, pad_edge=False)
    for state in states:
        since_s = time.time() - (state.ended_at_s or state.started_at_s)
        code = "" if state.exit_code is None else str(state.exit_code)
        table.add_row(state.name, state.state, str(state.pid or ""), _ago(since_s), str(state.starts), code)
    console.print(table)
    for state in states:
        words = _last_words(cluster, state)
        if words is not None:
            console.print(f"\n{state.name} ended by itself; the end of {state.log}:\n{words}", markup=False)
    console.print(f"\nexport KUBECONFIG={cluster.kubeconfig}")


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
