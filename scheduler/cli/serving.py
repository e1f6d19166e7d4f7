"""What the commands that serve have in common: settings under the options, errors as sentences."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import typer
import uvloop
from pydantic import ValidationError

from scheduler.config import ConfigError, Settings
from scheduler.settings_section import Section
from scheduler.settings_text import sentences
from scheduler.structured_logs import set_up_logs, tell_why_it_ends

Part = TypeVar("Part", bound=Section)


def with_options(settings: Settings, section: str, own: Mapping[str, Any], **general: Any) -> Settings:
    """`settings` with the options given on the command line (not None) over them, checked again.

    `own` are those of one section, `general` those at the top.

    Raises:
        ConfigError: an option has an impossible value.
    """
    return _changed(settings, {**general, section: _changed(getattr(settings, section), own)})


def _changed(part: Part, given: Mapping[str, Any]) -> Part:
    """`part` with those of the values that are not None."""
    changed = {name: value for name, value in given.items() if value is not None}
    held = {name: getattr(part, name) for name in type(part).model_fields}
    try:
        return part.model_validate({**held, **changed})
    except ValidationError as error:
        mistakes = sentences(error, type(part))
        raise ConfigError("\n".join(["the options cannot be used:", *mistakes])) from error


def run_serving(command: str, settings: Settings, serving: Coroutine[Any, Any, None]) -> None:
    """Serve until stopped; a process that cannot start says why and exits 1."""
    set_up_logs(settings.log_format)
    try:
        uvloop.run(serving)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except _told() as error:
        tell_why_it_ends(settings.log_format, command, error)
        raise typer.Exit(1) from error


def _told() -> tuple[type[Exception], ...]:
    """Errors that are sentences; loaded once there is one, for the client of Kubernetes is large."""
    from scheduler.edge.certificates import CertificateError
    from scheduler.edge.kube import KubeError
    from scheduler.edge.store_error import StoreError

    return KubeError, StoreError, ConfigError, CertificateError, OSError


def load_settings(command: str, config: Path | None) -> Settings:
    """The settings; mistakes end the command with exit code 2."""
    try:
        return Settings.load(config)
    except ConfigError as error:
        typer.echo(f"fairlane {command}: {error}", err=True)
        raise typer.Exit(2) from error
