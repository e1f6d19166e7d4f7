"""`fairlane support-bundle`: what is needed to find a fault, in one file, without secrets."""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import json
import logging
import os
import platform
import secrets
import sys
import tarfile
import time
from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.doctor import CHECKS, as_plain
from scheduler.cli.serving import load_settings
from scheduler.edge.diagnosis import diagnose
from scheduler.edge.facts import Facts, gather
from scheduler.edge.overview import overview
from scheduler.edge.redaction import Redactor
from scheduler.edge.support import NEVER, Bundle, gather_bundle, redacted, secrets_of, users_of

EXAMPLES = """
Examples:

  fairlane support-bundle

  fairlane support-bundle --hash-users --output for-the-ticket.tar.gz

  fairlane support-bundle --namespace fairlane-system --config fairlane.yaml

Look at it before you send it: tar -tzf FILE, and left-out.txt in it.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def support_bundle(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; default: a name with the time.")
    ] = None,
    hash_users: Annotated[
        bool, typer.Option("--hash-users", help="Write user-HASH for the users that the queue knows.")
    ] = False,
    namespace: Annotated[str, typer.Option(help="Of the release.")] = "fairlane-system",
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
) -> None:
    """Gather settings, states, metrics, objects and logs of Fairlane's own parts in a file, without secrets.

    Tokens, keys, passwords and values of environment variables are taken out; what could not be had, and what
    is never taken, is said in left-out.txt. Exit code 1 when the file cannot be written.
    """
    logging.getLogger("scheduler").setLevel(logging.ERROR)  # what fails is told in the bundle
    settings = load_settings("support-bundle", config)

    async def both() -> tuple[Facts, Bundle]:
        return await gather(settings), await gather_bundle(settings, namespace)

    facts, bundle = asyncio.run(both())
    bundle.files |= _own_words(facts)
    try:
        users = users_of(facts, bundle) if hash_users else ()
    except ValueError as error:
        typer.echo(
            f"fairlane support-bundle: nothing is written, for no name could be hashed: {error}", err=True
        )
        raise typer.Exit(1) from error
    redact = Redactor(secrets_of(settings, os.environ), users, secrets.token_bytes(16))
    clean = redacted(bundle, redact)
    clean.files["left-out.txt"] = _left_out(clean, redact)
    path = output or Path(time.strftime("fairlane-support-%Y%m%d-%H%M%S.tar.gz"))
    try:
        path.touch(mode=0o600)
        path.write_bytes(_archive(clean))
    except OSError as error:
        typer.echo(f"fairlane support-bundle: {path} cannot be written: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{path}: {len(clean.files)} files; {len(clean.left_out)} could not be had (left-out.txt)")


def _own_words(facts: Facts) -> dict[str, str]:
    """Doctor, status and queue, and which versions these are."""
    findings = diagnose(facts, CHECKS)
    versions = {
        name: importlib.metadata.version(name) for name in ("fairlane", "lightgbm", "grpcio", "uvicorn")
    }
    versions |= {"python": sys.version, "platform": platform.platform()}
    told = {
        "doctor.json": as_plain(facts, findings),
        "status.json": overview(facts, findings),
        "queue.json": facts.queue.answer or {"failure": facts.queue.failure},
        "versions.json": versions,
    }
    return {name: json.dumps(values, indent=1) for name, values in told.items()}


def _left_out(bundle: Bundle, redact: Redactor) -> str:
    lines = ["Never taken:", *(f"  {line}" for line in NEVER), "", "Taken out of what was taken:"]
    counts = {kind: count for kind, count in redact.counts.items() if count}
    lines += [f"  {count} x {kind}" for kind, count in sorted(counts.items())] or ["  nothing was found"]
    lines += ["", "Could not be had:", *(f"  {line}" for line in bundle.left_out or ["nothing"])]
    return "\n".join(lines) + "\n"


def _archive(bundle: Bundle) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in sorted(bundle.files.items()):
            content = text.encode()
            entry = tarfile.TarInfo(f"fairlane-support/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
