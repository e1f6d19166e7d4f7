"""`fairlane probe`: measure RTT, loss and transfer time to the probes of other nodes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.config import ConfigError, ProbeSettings, Settings
from scheduler.edge.metrics import Scrape
from scheduler.edge.probe import Probe
from scheduler.edge.probe_metrics import ProbeCollector
from scheduler.edge.probe_peers import ListPeers, from_dns, from_file, from_kube
from scheduler.edge.told_beside import told_beside
from scheduler.structured_logs import set_up_logs, tell_why_it_ends

EXAMPLES = """
Examples:

  fairlane probe --peers-from dns --peers fairlane-probe.fairlane.svc --node $NODE_NAME

  fairlane probe --peers-from kube --peers app=fairlane-probe --node $NODE_NAME --namespace fairlane

  fairlane probe --node a --peers-from file --peers peers.txt --interval 5
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class PeersFrom(StrEnum):
    """Where the list of peers comes from."""

    DNS = "dns"
    FILE = "file"
    KUBE = "kube"


@app.command(epilog=EXAMPLES)
def probe(
    node: Annotated[str, typer.Option(help="Name of this node, as Kubernetes calls it.")],
    peers_from: Annotated[PeersFrom, typer.Option(help="Where the peers are listed.")],
    peers: Annotated[
        str, typer.Option(help="Headless Service, file of `node host[:port]` lines, or label selector.")
    ],
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for peers; 0 takes a free one.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port for Prometheus; 0 takes a free one.")] = None,
    peer_port: Annotated[
        int | None, typer.Option(help="Port of the peers, where the list says none.")
    ] = None,
    interval: Annotated[float | None, typer.Option(help="Seconds between two rounds.")] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the ports there as JSON, once open.")] = None,
    namespace: Annotated[str, typer.Option(help="Of the probes' pods, for --peers-from kube.")] = "fairlane",
    kubeconfig: Annotated[str | None, typer.Option(help="For --peers-from kube.")] = None,
) -> None:
    """Measure RTT, loss and the time of a small transfer to the probes of other nodes, within a byte budget.

    Serves Prometheus metrics. Peers need the same FAIRLANE_TOKEN, or certificates of one authority.
    """
    wanted = {"host": host, "port": port, "metrics_port": metrics_port, "interval_s": interval}
    try:
        settings = Settings.load(config)
        set_up_logs(settings.log_format)
        own = with_overrides(settings.probe, wanted)
        list_peers = _Peers(peers_from, peers, peer_port or own.port, namespace, kubeconfig)
        asyncio.run(_run(settings, own, node, list_peers, port_file))
    except ConfigError as error:
        typer.echo(f"fairlane probe: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        tell_why_it_ends(settings.log_format, "probe", OSError(f"cannot open its ports: {error}"))
        raise typer.Exit(1) from error


def with_overrides(settings: ProbeSettings, wanted: dict[str, Any]) -> ProbeSettings:
    """`settings` with the options of the command line over them, checked again."""
    given = {name: value for name, value in wanted.items() if value is not None}
    try:
        return ProbeSettings.model_validate({**settings.model_dump(), **given})
    except ValueError as error:
        raise ConfigError(str(error)) from error


class _Peers:
    """Opens the way to the list of peers for as long as the probe runs."""

    def __init__(
        self, source: PeersFrom, name: str, port: int, namespace: str, kubeconfig: str | None
    ) -> None:
        self._source, self._name, self._port = source, name, port
        self._namespace, self._kubeconfig = namespace, kubeconfig

    async def open(self, stack: contextlib.AsyncExitStack) -> ListPeers:
        if self._source is PeersFrom.DNS:
            return from_dns(self._name, self._port)
        if self._source is PeersFrom.FILE:
            return from_file(Path(self._name), self._port)
        from scheduler.edge.kube import KubeClient  # large, and most probes never need it

        kube = await stack.enter_async_context(KubeClient.connect(self._kubeconfig))
        return from_kube(kube, self._namespace, self._name, self._port)


async def _run(
    settings: Settings, own: ProbeSettings, node: str, peers: _Peers, port_file: Path | None
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        probe = Probe(own, node, settings.token.get_secret_value(), await peers.open(stack))
        await probe.start()
        metrics = Scrape("probe", ProbeCollector(probe.state))
        telling = told_beside(own.host, own.metrics_port, probe.status, metrics, probe.unready)
        metrics_port = await stack.enter_async_context(telling)
        if port_file is not None:
            ports = {"port": probe.port, "metrics_port": metrics_port}
            port_file.write_text(json.dumps(ports))  # noqa: ASYNC240 - once, before the first round
        await _until_stopped(probe)


async def _until_stopped(probe: Probe) -> None:
    running = asyncio.create_task(probe.run())
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
