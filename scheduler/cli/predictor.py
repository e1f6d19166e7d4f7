"""`fairlane predictor`: the model server as a process."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scheduler.cli.serving import load_settings, with_options
from scheduler.config import ConfigError, PredictorSettings, Settings
from scheduler.structured_logs import set_up_logs, tell_why_it_ends

if TYPE_CHECKING:
    from model.serve import ServerSettings

app = typer.Typer(add_completion=False, rich_markup_mode=None)

EXAMPLES = """Examples:

  fairlane predictor --config fairlane.yaml

  fairlane predictor --registry /var/lib/fairlane/models --port 8889

  fairlane predictor --registry s3://bucket/models --host 0.0.0.0 --poll-s 30
"""


@app.command(epilog=EXAMPLES)
def predictor(
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
    registry: Annotated[
        str | None, typer.Option(help="Where models are published: a path or an fsspec URL.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    port_file: Annotated[Path | None, typer.Option(help="Write the port here once it is known.")] = None,
    poll_s: Annotated[float | None, typer.Option(help="Seconds between looks for a newer model.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that predict.")] = None,
) -> None:
    """Serve the newest model over gRPC, with health and reflection; newer models are taken while serving.

    Without a model the health service says NOT_SERVING and the first model
    published is taken. Options win over the settings file.
    """
    from model.registry import RegistryError

    given = {"registry": registry, "host": host, "port": port, "reload_s": poll_s, "threads": threads}
    try:
        settings = with_options(load_settings("predictor", config), "predictor", given)
    except ConfigError as error:
        typer.echo(f"fairlane predictor: {error}", err=True)
        raise typer.Exit(2) from error
    set_up_logs(settings.log_format)
    try:
        asyncio.run(_serve(server_settings(settings), settings.predictor, port_file))
    except (ConfigError, RegistryError, OSError) as error:
        tell_why_it_ends(settings.log_format, "predictor", error)
        raise typer.Exit(1) from error


def server_settings(settings: Settings) -> ServerSettings:
    """What the model server needs of the settings.

    Raises:
        ConfigError: others could reach it and there is no token.
    """
    from scheduler.edge.http_server import is_loopback

    own, token = settings.predictor, settings.token.get_secret_value()
    if not token and not is_loopback(own.host):
        raise ConfigError(
            f"others could ask for predictions on {own.host}: set FAIRLANE_TOKEN, or listen on 127.0.0.1"
        )
    from model.serve import ServerSettings

    return ServerSettings(
        own.registry,
        own.host,
        own.port,
        own.reload_s,
        own.threads,
        token=token,
        certificate=own.certificate_file,
        key=own.key_file,
    )


async def _serve(settings: ServerSettings, own: PredictorSettings, port_file: Path | None) -> None:
    from model.serve import PredictorServer
    from scheduler.edge.memory import keep_freed_memory
    from scheduler.edge.metrics import Scrape
    from scheduler.edge.predictor_metrics import PredictorMetrics
    from scheduler.edge.told_beside import told_beside
    from scheduler.edge.yielding import add_niceness

    keep_freed_memory()
    add_niceness(own.niceness)
    server = PredictorServer(settings)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    told = PredictorMetrics(server.status, own.stale_after_days * 86400.0, settings.certificate)
    metrics = Scrape("predictor", told)
    async with told_beside(own.metrics_host, own.metrics_port, server.status, metrics, server.unready):
        await server.start()
        logging.getLogger("fairlane.predictor").info("listening on %s:%d", settings.host, server.port)
        if port_file is not None:
            _write_whole(port_file, f"{server.port}\n")
        await ended.wait()
        await server.stop()


def _write_whole(path: Path, text: str) -> None:
    """A reader of the file sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(text)
    unfinished.replace(path)
