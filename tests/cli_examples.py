"""The examples of docs/cli.md, as they would be typed: lines that the page wraps are put together again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from docs_blocks import ROOT

PAGE = ROOT / "docs" / "cli.md"
_BEGINS = re.compile(r'(?:watch |[A-Z_]+=\S+ )*(?:[A-Z_]+=\S+$|(?:kubectl |eval "\$\()?fairlane\b)')


@dataclass(frozen=True)
class Example:
    """One example: in whose help it stands, and the words."""

    command: str
    text: str

    def __str__(self) -> str:
        return f"{self.command}: {self.text}"

    @property
    def commands(self) -> list[list[str]]:
        """Its simple commands as words."""
        found: list[list[str]] = [[]]
        inside = re.fullmatch(r'eval "\$\((.*)\)"', self.text)
        typed = inside[1] if inside else self.text.removeprefix("watch ")
        lexer = shlex.shlex(typed, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        for word in lexer:
            if set(word) <= set("|&;<>"):
                found.append([])
            elif found[-1] or not re.fullmatch(r"[A-Z_]+=.*", word):
                found[-1].append(word)
        return found


def examples() -> list[Example]:
    """All of the page, in its order."""
    sections = re.split(r"^##+ (fairlane .+)$", PAGE.read_text(), flags=re.M)[1:]
    return [
        Example(command, text)
        for command, told in zip(sections[::2], sections[1::2], strict=True)
        for text in _of(told)
    ]


def _of(told: str) -> Iterator[str]:
    """The examples in the help of a command."""
    for part in re.findall(r"^ *Examples?:$\n(.*?)(?=^\w|^```)", told, re.M | re.S):
        lines: list[str] = []
        for line in [*part.splitlines(), ""]:
            stripped = line.strip()
            complete = not lines or re.search(r"\bfairlane\b", " ".join(lines))
            if lines and (not stripped or (complete and _BEGINS.match(stripped))):
                yield re.sub(r"(?<=\w)- (?=\w)", "-", " ".join(lines))  # help is wrapped at hyphens too
                lines = []
            if stripped and (lines or _BEGINS.match(stripped)):
                lines.append(stripped)
