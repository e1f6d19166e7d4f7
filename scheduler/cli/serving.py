"""What the commands that serve have in common: settings under the options, errors as sentences."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import typer
import uvloop

from scheduler.config import ConfigError, Settings
from scheduler.settings_section import Section
from scheduler.structured_logs import set_up_logs

Part = TypeVar("Part", bound=Section)


def with_options(settings: Settings, section: str, own: Mapping[str, Any], **general: Any) -> Settings:
    """`settings` with the options given on the command line (not None) over them, checked again.

    `own` are those of one section, `general` those at the top.

    Raises:
        ConfigError: an option has an impossible value.
    """
    part = getattr(settings, section)
    changed = {name: value for name, value in general.items() if value is not None}
    changed[section] = _changed(part, own)
    return settings.model_copy(update=changed)


def _changed(part: Part, own: Mapping[str, Any]) -> Part:
    given = {name: value for name, value in own.items() if value is not None}
    try:
        return part.model_validate({**part.model_dump(), **given})
    except ValueError as error:
        raise ConfigError(str(error)) from error


def run_serving(command: str, settings: Settings, serving: Coroutine[Any, Any, None]) -> None:
    """Serve until stopped; a process that cannot start says why and exits 1."""
    set_up_logs(settings.log_format)
    try:
        uvloop.run(serving)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except _told() as error:
        typer.echo(f"fairlane {command}: {error}", err=True)
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
