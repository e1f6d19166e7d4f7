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
from typing import Annotated, NoReturn

import typer

from scheduler.cli.doctor import CHECKS, as_plain
from scheduler.cli.serving import load_settings
from scheduler.config import Settings
from scheduler.edge.diagnosis import diagnose
from scheduler.edge.facts import Facts, gather
from scheduler.edge.overview import overview
from scheduler.edge.redaction import Redactor
from scheduler.edge.support import NEVER, Gathered, gather_bundle, has_urls, secrets_of
from scheduler.edge.support_bundle import Bundle, redacted
from scheduler.edge.support_users import add_queue

EXAMPLES = """
Examples:

  fairlane support-bundle

  fairlane support-bundle --hash-users --output for-the-ticket.tar.gz

  fairlane support-bundle --config fairlane.yaml

Without settings all is asked through the API server, from anywhere, with your rights to read pods, logs and
events, and to exec in Fairlane's own pods; `kubectl fairlane --context prod support-bundle` chooses where.

Look at it before you send it: tar -tzf FILE, and left-out.txt in it.
"""

INCOMPLETE = 3
"""Exit code where the bundle is there, and something could not be had."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def support_bundle(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; default: a name with the time.")
    ] = None,
    hash_users: Annotated[
        bool,
        typer.Option("--hash-users", help="Write user-HASH for all users, or nothing."),
    ] = False,
    namespace: Annotated[str, typer.Option(help="Of the release; default: where its pods are.")] = "",
    config: Annotated[Path | None, typer.Option(envvar="FAIRLANE_CONFIG", help="Settings file.")] = None,
) -> None:
    """Gather settings, states, metrics, objects, events and logs of Fairlane's own parts, without secrets.

    Tokens, keys, passwords and values of environment variables are taken out; what could not be had and why,
    and what is never taken, is said in left-out.txt. Exit code 0 when all is in it, 3 when the file is there
    and something could not be had; 1, and no file, when it cannot be written, or when users are to be hashed
    and it is not known who they all are.
    """
    logging.getLogger("scheduler").setLevel(logging.ERROR)  # what fails is told in the bundle
    settings = load_settings("support-bundle", config)
    gathered = asyncio.run(_gathered(settings, namespace, hash_users))
    bundle, users = gathered.bundle, gathered.users
    unread = [f"names of users by {source}: {why}" for source, why in users.unread.items() if hash_users]
    if hash_users and not users.known:
        told = "\n".join(f"  {line}" for line in unread)
        _end(f"nothing is written: users are to be hashed, and it is not known who they all are\n{told}")
    bundle.left_out += unread
    known = [one for each in gathered.settings for one in secrets_of(each, os.environ)]
    redact = Redactor(known, users.names if hash_users else (), secrets.token_bytes(16))
    clean = redacted(bundle, redact)
    clean.files["left-out.txt"] = _left_out(clean, redact)
    path = output or Path(time.strftime("fairlane-support-%Y%m%d-%H%M%S.tar.gz"))
    try:
        path.touch(mode=0o600)
        path.write_bytes(_archive(clean))
    except OSError as error:
        _end(f"{path} cannot be written: {error.strerror}")
    typer.echo(f"{path}: {len(clean.files)} files")
    if clean.left_out:
        told = f"{len(clean.left_out)} could not be had: see left-out.txt in it"
        typer.echo(f"fairlane support-bundle: {told}", err=True)
        raise typer.Exit(INCOMPLETE)


def _end(sentence: str) -> NoReturn:
    typer.echo(f"fairlane support-bundle: {sentence}", err=True)
    raise typer.Exit(1)


async def _gathered(settings: Settings, namespace: str, with_users: bool) -> Gathered:
    """With our own words about it, where the parts can be asked from here."""
    gathering = gather_bundle(settings, namespace, with_users)
    if not has_urls(settings):
        gathered = await gathering
    else:
        facts, gathered = await asyncio.gather(gather(settings), gathering)
        for name, words in _own_words(facts).items():
            gathered.bundle.add(name, words)
        add_queue(gathered.users, gathered.bundle.files["queue.json"])
    for each in gathered.settings:
        gathered.users.names |= set(each.controller.weights)
    gathered.bundle.add("versions.json", json.dumps(_versions(), indent=1))
    return gathered


def _own_words(facts: Facts) -> dict[str, str]:
    """What doctor, status and queue say."""
    findings = diagnose(facts, CHECKS)
    told = {
        "doctor.json": as_plain(facts, findings),
        "status.json": overview(facts, findings),
        "queue.json": facts.queue.answer or {"failure": facts.queue.failure},
    }
    return {name: json.dumps(values, indent=1) for name, values in told.items()}


def _versions() -> dict[str, str]:
    """Of where the bundle is made; the images of the pods are in cluster/pods.json."""
    names = ("fairlane", "lightgbm", "grpcio", "uvicorn")
    return {name: importlib.metadata.version(name) for name in names} | {
        "python": sys.version,
        "platform": platform.platform(),
    }


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
