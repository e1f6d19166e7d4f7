"""The configured telemetry sources: presets by name, and inline ones."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml
from pydantic import ValidationError

from model.snapshot import NODE_READINGS, PAIR_READINGS
from scheduler.config import ConfigError, Settings, Source
from scheduler.settings_text import sentences

READING_NAMES = tuple(reading.name for reading in (*NODE_READINGS, *PAIR_READINGS))
_FOLDER = resources.files("scheduler.edge") / "presets"


def preset_names() -> tuple[str, ...]:
    """All presets that come with Fairlane."""
    return tuple(sorted(f.name.removesuffix(".yaml") for f in _FOLDER.iterdir() if f.name.endswith(".yaml")))


def load_sources(settings: Settings) -> tuple[Source, ...]:
    """The sources in order of precedence; `ConfigError` for an unknown preset or reading."""
    sources = tuple(source if isinstance(source, Source) else preset(source) for source in settings.sources)
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"sources: {', '.join(twice)} is listed twice; give each source its own name")
    for source in sources:
        _check_readings(source)
    return sources


def _check_readings(source: Source) -> None:
    if unknown := sorted(source.readings.keys() - set(READING_NAMES)):
        raise ConfigError(
            f"sources: {source.name} has readings that do not exist ({', '.join(unknown)});"
            f" there are {', '.join(READING_NAMES)}"
        )


def preset(name: str) -> Source:
    """The preset called `name`."""
    if name not in preset_names():
        raise ConfigError(f"sources: there is no preset {name!r}; there are {', '.join(preset_names())}")
    values: Any = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    try:
        return Source.model_validate({"name": name, **values})
    except ValidationError as error:
        raise ConfigError("\n".join([f"the preset {name}:", *sentences(error, Source)])) from error
