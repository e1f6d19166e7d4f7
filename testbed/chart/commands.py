"""docs/cli.md: the help of every command, made from the code."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from typer.main import get_command
from typer.testing import CliRunner

from scheduler.cli.main import COMMANDS, app

HEAD = """\
# Commands

Made by `make manifests` from the code; `fairlane COMMAND --help` tells the same.

`kubectl fairlane COMMAND` runs `status`, `doctor`, `queue`, `usage` and `explain` beside Fairlane's parts
in the cluster, with the rights to `exec` that you have there, and everything else where it is called. It is
there as soon as the package is installed; options of kubectl come first:
`kubectl fairlane --context prod -n own-namespace status`. The pod is found by its labels: in
the namespace that is named, else in `fairlane-system`, else in any.

Completion: `fairlane --install-completion` once for the shell in use (bash, zsh, fish), or, for this session,
`eval "$(_FAIRLANE_COMPLETE=source_bash fairlane)"`. kubectl's own completion knows `kubectl fairlane` too.

Exit codes, unless it is said otherwise: 0 done, 1 failed, 2 a mistake in the call or the settings.
"""
WIDE = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
"""Whatever the terminal is, the page is the same."""


def commands_text() -> str:
    """The whole page."""
    rows = [f"| [`fairlane {name}`](#fairlane-{name}) | {entry.help} |" for name, entry in COMMANDS.items()]
    index = "\n".join(["| command | |", "|---|---|", *rows])
    parts = [part for name in COMMANDS for part in _told(name)]
    return "\n\n".join([HEAD, index, *parts]) + "\n"


def _told(name: str) -> Iterator[str]:
    """A command, and those below it."""
    module, attribute = COMMANDS[name].path.split(":")
    command = get_command(getattr(importlib.import_module(module), attribute))
    yield f"## fairlane {name}\n\n```\n{help_of(name)}\n```"
    for below in getattr(command, "commands", {}):
        yield f"### fairlane {name} {below}\n\n```\n{help_of(name, below)}\n```"


def help_of(*words: str) -> str:
    """What `fairlane WORDS --help` prints."""
    told = CliRunner().invoke(app, [*words, "--help"], prog_name="fairlane", env=WIDE)
    if told.exit_code:
        raise ValueError(f"fairlane {' '.join(words)} --help failed: {told.output}")
    return "\n".join(line.rstrip() for line in told.output.strip().splitlines())
