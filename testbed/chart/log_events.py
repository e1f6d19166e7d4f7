"""docs/events.md: every sentence that the processes log, with its id, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from scheduler.structured_logs import event_id

ROOT = Path(__file__).parents[2]
FOLDERS = ("scheduler", "model")
LEVELS = ("info", "warning", "error", "exception", "critical")
HEAD = """\
# Events in the logs

Made by `make manifests` from the source. Each line of a log carries the id of its kind of event; with
`log_format: json` in the settings it is one JSON object a line: `at`, `level`, `event`, `logger`, `message`,
`values` (what stands for the `%s`), and `exception`. Ids stay as long as the sentence does.

| event | level | where | sentence |
|---|---|---|---|
"""


def events_text() -> str:
    """The whole page."""
    rows = sorted(set(_events()), key=lambda row: (row[2], row[3]))
    return HEAD + "".join(f"| `{row[0]}` | {' | '.join(row[1:])} |\n" for row in rows)


def _events() -> Iterator[tuple[str, str, str, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if "logging" in text:
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield from _of_module(ast.parse(text), module)


def _of_module(tree: ast.Module, module: str) -> Iterator[tuple[str, str, str, str]]:
    logger = _named_logger(tree) or module
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        first = node.args[0]
        if node.func.attr in LEVELS and isinstance(first, ast.Constant) and isinstance(first.value, str):
            level = "error" if node.func.attr == "exception" else node.func.attr
            shown = first.value.replace("|", "\\|")
            yield event_id(logger, first.value), level, logger, shown


def _named_logger(tree: ast.Module) -> str:
    """The name given to getLogger, where it is not the module's own."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    for call in calls:
        name = call.args[0]
        if getattr(call.func, "attr", "") == "getLogger" and isinstance(name, ast.Constant):
            return str(name.value)
    return ""
