"""`fairlane promote`: let one waiting gang go before all others, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.serving import load_settings
from scheduler.edge.controller_client import ControllerClient, ControllerError

EXAMPLES = """
Examples:

  fairlane promote team-a/etl-driver

  fairlane promote team-a/train-0 --controller http://127.0.0.1:8891
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def promote(
    gang: Annotated[
        str,
        typer.Argument(metavar="NAMESPACE/NAME", help="Its name, or that of one of its pods."),
    ],
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    controller: Annotated[
        str | None, typer.Option(help="URL of the controller; default: the setting.")
    ] = None,
) -> None:
    """Put a waiting gang before all others: released as soon as there is room, charged like any other.

    It outlasts a restart, and leaves a Kubernetes event. Exit code 1 when the gang does not wait or the
    controller cannot be asked, 2 for a mistake in the call.
    """
    namespace, slash, name = gang.partition("/")
    if not (namespace and slash and name) or "/" in name:
        typer.echo(f"fairlane promote: name the gang as NAMESPACE/NAME, not {gang!r}", err=True)
        raise typer.Exit(2)
    settings = load_settings("promote", config)
    client = ControllerClient(controller or settings.controller_url, settings.token.get_secret_value())
    try:
        told = client.promote(client.gang_named(namespace, name)["uid"])
    except ControllerError as error:
        typer.echo(f"fairlane promote: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(told["done"])
    if warning := told.get("warning"):
        typer.echo(f"fairlane promote: {warning}", err=True)
