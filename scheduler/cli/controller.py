"""`fairlane controller`: keep the fair queue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.serving import load_settings, run_serving, with_options
from scheduler.config import ConfigError
from scheduler.edge.controller_process import serve
from scheduler.web import page_routes

EXAMPLES = """
Examples:

  FAIRLANE_TOKEN=secret fairlane controller --config fairlane.yaml

  fairlane controller --host 127.0.0.1 --port 0 --port-file controller.port
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def controller(
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 takes a free one.")] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the port there, once it is open.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Of the Lease and the checkpoint.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: in-cluster, else KUBECONFIG or ~/.kube/config.")
    ] = None,
) -> None:
    """Keep the fair queue: release waiting gangs in fair order while the cluster has room.

    Several replicas may run; one leads, and another takes over when it ends. Nothing but the API server
    is needed: who waits and runs is read from the pods, what was charged from a checkpoint. The port also
    has a read-only page for browsers.
    """
    settings = load_settings("controller", config)
    try:
        own = {"host": host, "port": port, "namespace": namespace}
        settings = with_options(settings, "controller", own, kubeconfig=kubeconfig)
    except ConfigError as error:
        typer.echo(f"fairlane controller: {error}", err=True)
        raise typer.Exit(2) from error
    run_serving("controller", settings, serve(settings, port_file, page_routes()))
