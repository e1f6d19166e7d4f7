"""`fairlane extender`: answer kube-scheduler's filter and prioritize calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.serving import load_settings, run_serving, with_options
from scheduler.config import ConfigError
from scheduler.edge.extender_process import serve

EXAMPLES = """
Examples:

  fairlane extender --config fairlane.yaml

  fairlane extender --port 0 --port-file extender.port --kubeconfig admin.conf

  FAIRLANE_PROMETHEUS__URL=http://prometheus:9090 FAIRLANE_PREDICTOR_ADDRESS=predictor:8889 fairlane extender
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def extender(
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for kube-scheduler; 0 takes a free one.")] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the port there, once it is open.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: in-cluster, else KUBECONFIG or ~/.kube/config.")
    ] = None,
) -> None:
    """Serve the scheduler extender: the best of the candidate nodes of each pod, from tables kept in memory.

    Its configuration for kube-scheduler needs filterVerb: filter (the pod gets the best node) or
    prioritizeVerb: prioritize (scores beside other plugins'), nodeCacheCapable: true and ignorable: true.
    Without telemetry or predictor it still answers, says why in /v1/status, and never delays a placement.
    """
    settings = load_settings("extender", config)
    try:
        settings = with_options(settings, "extender", {"host": host, "port": port}, kubeconfig=kubeconfig)
    except ConfigError as error:
        typer.echo(f"fairlane extender: {error}", err=True)
        raise typer.Exit(2) from error
    run_serving("extender", settings, serve(settings, port_file))
