"""Settings as text: the YAML file, the environment over it, and mistakes told in sentences.

Values in the environment win. `FAIRLANE_EPOCH_S=3` sets a field,
`FAIRLANE_PROMETHEUS__URL=http://...` (two underscores) a field of a section.
Values are YAML, so `FAIRLANE_SOURCES='[node_exporter, fairlane_probe]'` is a list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

PREFIX = "FAIRLANE_"
_RESERVED = {"CONFIG", "BIN_DIR", "CACHE_DIR"}
"""Variables with our prefix that belong to the command line and the testbed, not to the settings."""
_SERVICE_LINK = re.compile(r".*(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT(_\d+_(TCP|UDP)(_\w+)?)?)$|^PORT$")
"""What Kubernetes injects into every pod for a Service called fairlane-something."""
_PLAIN_TEXT = re.compile(r"(^|__)(TOKEN|BEARER_TOKEN|USERNAME|PASSWORD)$")
"""Never parsed as YAML: a secret made of digits must stay text."""

_NOT_YAML = (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError)
"""What PyYAML raises: besides its own errors those of its parts, e.g. for 2020-13-45, 0x_ or much nesting."""


class ConfigError(ValueError):
    """The settings cannot be used; the message says which and why, one sentence a line."""


class _EachKeyOnce(yaml.SafeLoader):
    """YAML of which no key is given twice: PyYAML would forget the first without a word."""


def _mapping(loader: _EachKeyOnce, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    twice = sorted({key for key in keys if keys.count(key) > 1 and key != "<<"})
    if twice:
        raise yaml.constructor.ConstructorError(
            None, None, f"{', '.join(twice)} is given more than once", node.start_mark
        )
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_EachKeyOnce.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_secret(path: Path) -> str:
    """The text of a file that holds one secret, without surrounding white space."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the secret in {path}: {error}") from error
    if not text:
        raise ConfigError(f"{path} is empty, but a secret is expected in it")
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; empty for an empty file."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error.strerror}") from error
    except _NOT_YAML as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, not a {type(values).__name__}")
    return values


def overlay(values: dict[str, Any], environment: Mapping[str, str], model: type[BaseModel]) -> None:
    """Set in `values` what the environment says about the fields of `model`."""
    for variable in sorted(environment):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and _is_setting(name, model):
            _assign(values, name.lower().split("__"), _parsed(variable, environment[variable]), variable)


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence per mistake in the settings, with the setting it is about."""
    details = error.errors(include_url=False, include_input=False)
    return [f"  {_sentence(detail, model)}" for detail in details]


def _is_setting(name: str, model: type[BaseModel]) -> bool:
    """Whether `FAIRLANE_<name>` is a setting; raises for what looks like a misspelt one."""
    if "__" in name or name.lower() in model.model_fields:
        return True
    if name in _RESERVED or _SERVICE_LINK.match(name):
        return False
    close = _closest(name.lower(), model, cutoff=0.8)
    if close:
        raise ConfigError(f"{PREFIX}{name} is no setting; did you mean {PREFIX}{close.upper()}?")
    return False


def _parsed(variable: str, text: str) -> Any:
    if not text or _PLAIN_TEXT.search(variable.removeprefix(PREFIX)):
        return text
    try:
        return yaml.safe_load(text)
    except _NOT_YAML as error:
        raise ConfigError(f"the environment variable {variable} is not valid YAML: {error}") from error


def _assign(values: dict[str, Any], keys: Sequence[str], value: Any, variable: str) -> None:
    for key in keys[:-1]:
        section = values.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{variable} sets a field of {key!r}, but {key!r} is no section")
        values = section
    values[keys[-1]] = value


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    place = [str(part) for part in detail["loc"]]
    if detail["type"] == "extra_forbidden":
        close = _closest("__".join(place), model, cutoff=0.7)
        hint = f"; did you mean {close.replace('__', '.')}?" if close else "."
        return f"{'.'.join(place)}: there is no such setting{hint}"
    if detail["type"] == "missing":
        return f"{'.'.join(place)}: this is needed and not given."
    message = detail["msg"].removeprefix("Value error, ")
    return f"{'.'.join(place) or 'settings'}: {message[:1].lower()}{message[1:]}."


def _closest(name: str, model: type[BaseModel], cutoff: float) -> str | None:
    close = difflib.get_close_matches(name, list(_all_names(model)), n=1, cutoff=cutoff)
    return close[0] if close else None


def _all_names(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from (f"{name}__{field}" for field in info.annotation.model_fields)
