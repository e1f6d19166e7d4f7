"""`python -m testbed.physics`: the process behind the simulated nodes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import typer

from testbed.physics.process import run


def main(
    kubeconfig: str = typer.Option(..., help="API server to follow."),
    seed: int = typer.Option(1, help="Seed of the world: links, congestion, node speeds."),
    port: int = typer.Option(0, help="Port of the exporters; 0 takes a free one."),
    port_file: Path | None = typer.Option(None, help="Where to write the port taken."),
    truth_file: Path | None = typer.Option(None, help="JSON lines of run times on every node."),
) -> None:
    """Decide how long every bound pod runs, and export noisy readings of the links and nodes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(kubeconfig, seed, port, port_file, truth_file))


if __name__ == "__main__":
    typer.run(main)
