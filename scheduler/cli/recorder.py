"""`fairlane recorder`: keep the experience store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.serving import load_settings, run_serving, with_options
from scheduler.config import ConfigError
from scheduler.edge.recorder_process import serve
from scheduler.edge.store import ExperienceStore, StoreError

EXAMPLES = """
Examples:

  FAIRLANE_TOKEN=secret fairlane recorder --config fairlane.yaml

  fairlane recorder --host 127.0.0.1 --port 0 --port-file recorder.port --store sqlite:///experience.db

  fairlane recorder --store postgresql://fairlane@db/fairlane

  fairlane recorder migrate --to 1 --config fairlane.yaml
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def recorder(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port for our other processes; 0 takes a free one.")
    ] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the port there, once it is open.")] = None,
    store: Annotated[
        str | None, typer.Option(help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.")
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: in-cluster, else KUBECONFIG or ~/.kube/config.")
    ] = None,
) -> None:
    """Record decisions of the extender and what became of the pods, and serve both for training.

    The only writer of the experience store. Pods are followed by a watch; decisions come by HTTP with
    the bearer token FAIRLANE_TOKEN. While the store is locked or full, nothing is lost: both ends wait.
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings("recorder", config)
    try:
        own = {"host": host, "port": port, "store_url": store}
        settings = with_options(settings, "recorder", own, kubeconfig=kubeconfig)
    except ConfigError as error:
        typer.echo(f"fairlane recorder: {error}", err=True)
        raise typer.Exit(2) from error
    run_serving("recorder", settings, serve(settings, port_file))


@app.command()
def migrate(
    to: Annotated[int, typer.Option(help="Version of the store to go to.")],
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    store: Annotated[
        str | None, typer.Option(help="sqlite:///FILE or postgresql://USER@HOST/DATABASE.")
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go back although something that is kept is lost by it.")
    ] = False,
) -> None:
    """Take the experience store to another version, before an older Fairlane is installed again.

    Forward it goes by itself, when a newer recorder starts. All of it is done, or nothing.
    """
    url = store or load_settings("recorder", config).recorder.store_url
    try:
        found = ExperienceStore(url).migrate(to, accept_loss)
    except StoreError as error:
        typer.echo(f"fairlane recorder migrate: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"the experience store had version {found}, and has version {to} now")
