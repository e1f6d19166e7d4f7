"""`fairlane trial`: submit a small gang, and see whether every part does its share."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from scheduler.cli.serving import load_settings
from scheduler.config import Settings
from scheduler.edge.kube import KubeClient, KubeError
from scheduler.edge.recorder_client import RecorderClient
from scheduler.edge.trial import Part, Plan, Tell, TrialFailed, try_gang

EXAMPLES = """
Examples:

  fairlane trial --namespace default

  fairlane trial --namespace team-a --size 4 --config fairlane.yaml

  fairlane trial --without scheduler

  fairlane trial --spec '{"tolerations": [{"operator": "Exists"}]}'

`helm test` runs it in the cluster. Exit code: 0 when all went well, 1 when a part did not do its share.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def trial(
    namespace: Annotated[
        str, typer.Option(help="Where the gang is submitted; not Fairlane's own.")
    ] = "default",
    size: Annotated[int, typer.Option(help="Pods of the gang.", min=1, max=100)] = 2,
    image: Annotated[str, typer.Option(help="Of the pods; need not be there.")] = "fairlane:latest",
    within: Annotated[float, typer.Option(help="Seconds that each step may take.", min=1.0)] = 60.0,
    without: Annotated[
        list[Part] | None,
        typer.Option(
            help="What is not installed: the queue, or our scheduler (then the default one places)."
        ),
    ] = None,
    spec: Annotated[
        str,
        typer.Option(metavar="JSON", help="More of the pods' spec: nodeSelector, tolerations, affinity."),
    ] = "{}",
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: in-cluster, else KUBECONFIG or ~/.kube/config.")
    ] = None,
) -> None:
    """Submit a small gang, and check that it is gated, released, placed and recorded; then remove it.

    What the pods would run does not matter. Without recorder_url in the settings the recorder is left out.
    """
    parts = frozenset(without or ())
    if parts == frozenset(Part):
        raise typer.BadParameter(
            "without the queue and the scheduler nothing is left to try", param_hint="--without"
        )
    more = _object(spec)
    settings = load_settings("trial", config)
    if kubeconfig is not None:
        settings = settings.model_copy(update={"kubeconfig": kubeconfig})
    begun_s = time.monotonic()

    def tell(sentence: str) -> None:
        typer.echo(f"{time.monotonic() - begun_s:6.1f} s  {sentence}")

    try:
        plan = Plan(namespace, size, image, within, parts, settings.controller.queue, more)
        asyncio.run(_run(settings, plan, tell))
    except (TrialFailed, KubeError) as error:
        typer.echo(f"fairlane trial: {error}", err=True)
        raise typer.Exit(1) from error
    except asyncio.CancelledError:
        typer.echo("fairlane trial: it was told to end", err=True)
        raise typer.Exit(128 + signal.SIGTERM) from None


def _object(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"it is no JSON: {error}", param_hint="--spec") from error
    if not isinstance(read, dict):
        raise typer.BadParameter(f"it must be a JSON object, not {text!r}", param_hint="--spec")
    return read


async def _run(settings: Settings, plan: Plan, tell: Tell) -> None:
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    if (own := asyncio.current_task()) is not None:  # so that the pods are removed, as after an interrupt
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, own.cancel)
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeClient.connect(kubeconfig))
        recorder = None
        if settings.recorder_url:
            token = settings.token.get_secret_value()
            recorder = await stack.enter_async_context(RecorderClient.connect(settings.recorder_url, token))
        await try_gang(kube, recorder, plan, tell)
