"""`fairlane admission`: the webhook, and the manifests of admission."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from scheduler.cli.serving import load_settings, run_serving, with_options
from scheduler.config import ConfigError
from scheduler.edge.admission_process import serve
from scheduler.edge.manifests import policy_manifests, webhook_manifests

EXAMPLES = """
Examples:

  fairlane admission --config fairlane.yaml

  fairlane admission manifests | kubectl apply -f -

  fairlane admission manifests --by webhook --config fairlane.yaml > admission.yaml
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class By(StrEnum):
    """Who applies the rules."""

    POLICIES = "policies"
    WEBHOOK = "webhook"


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def admission(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for the API server; 0 takes a free one.")] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the port there, once it is open.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: in-cluster, else KUBECONFIG or ~/.kube/config.")
    ] = None,
) -> None:
    """Serve the admission webhook: who opts in is gated and stamped with the authenticated user.

    Needed where the API server has no admission policies (before Kubernetes 1.36); both apply the same rules.
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings("admission", config)
    try:
        settings = with_options(settings, "admission", {"host": host, "port": port}, kubeconfig=kubeconfig)
    except ConfigError as error:
        typer.echo(f"fairlane admission: {error}", err=True)
        raise typer.Exit(2) from error
    run_serving("admission", settings, serve(settings, port_file))


@app.command()
def manifests(
    by: Annotated[
        By, typer.Option(help="Admission policies (Kubernetes 1.36+), or the webhook.")
    ] = By.POLICIES,
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
) -> None:
    """Print the Kubernetes objects of admission for the settings, ready for kubectl apply."""
    own = load_settings("admission", config).admission
    made = policy_manifests(own) if by is By.POLICIES else webhook_manifests(own)
    typer.echo(as_yaml(made), nl=False)


class _Plain(yaml.SafeDumper):
    """Writes everything out: references between objects are hard to read."""

    def ignore_aliases(self, _data: object) -> bool:
        """Always."""
        return True


def as_yaml(objects: Iterable[dict[str, Any]]) -> str:
    """Kubernetes objects as one YAML stream."""
    return yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)
