"""Logs for people or for machines; in both each kind of event has an id, which docs/events.md explains.

The id follows from where a sentence is written and from its text without the
values, so that it needs no list, and stays while the sentence stays.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from scheduler.letters import has_all_letters

log = logging.getLogger(__name__)
PLAIN = "%(asctime)s %(levelname)s %(event)s %(name)s: %(message)s"


def event_id(logger: str, template: str) -> str:
    """Six characters for a kind of event: the sentence `template` of the logger."""
    return hashlib.sha256(f"{logger}\0{template}".encode()).hexdigest()[:6]


class PlainFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self) -> None:
        super().__init__(PLAIN)

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the traceback below it where there is one."""
        record.event = event_id(record.name, str(record.msg))
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One JSON object on one line: at, level, event, logger, message, its values, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": event_id(record.name, str(record.msg)),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.args:
            values = record.args.values() if isinstance(record.args, dict) else record.args
            told["values"] = [_plain(value) for value in values]
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        # standard error writes what it has no letters for as \xfc, which JSON does not know
        return json.dumps(told, ensure_ascii=not has_all_letters(sys.stderr))


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no number for it
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def set_up_logs(log_format: str) -> None:
    """Log to standard error from INFO on, as `text` or as `json`; a fault that ends the process too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.excepthook = _log_fault
    warnings.showwarning = _log_warning


def tell_why_it_ends(log_format: str, command: str, error: Exception) -> None:
    """A sentence for who started it by hand; for machines an object like all others."""
    if log_format == "json":
        log.error("fairlane %s cannot go on: %s", command, error)
    else:
        print(f"fairlane {command}: {error}", file=sys.stderr)


def _log_warning(message: Warning | str, category: type[Warning], *_where: Any, **_more: Any) -> None:
    log.warning("a library warns of %s: %s", category.__name__, message)


def _log_fault(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    log.critical("the process ends by a fault: %s", fault, exc_info=(kind, fault, trace))
