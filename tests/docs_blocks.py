"""The fenced blocks of the docs, and how each is to be tried: a comment on the line above says it.

    <!-- run -->                  commands that are run on a testbed, in the order of the page
    <!-- run: long -->            the same, in the long tests only
    <!-- run: installed -->       the same, where the chart is installed on a testbed; in the long tests only
    <!-- parse-only: REASON -->   not run here; commands, options and manifests are checked all the same
    <!-- save: FILE -->           the block is what the reader is told to save as FILE; `run` blocks find it
    <!-- settings -->             a part of fairlane.yaml
    <!-- values -->               values of the Helm chart
    <!-- fragment: REASON -->     YAML that is nothing by itself

A block of commands (`sh`) must have one of the first three, YAML that is no
Kubernetes object one of the last four. `text` is for output and pictures.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ELSEWHERE = ("docs/cli.md", "docs/events.md")
"""Pages made from the code; the examples of the first are tried too (tests/cli_examples.py)."""
LANGUAGES = ("sh", "yaml", "json", "text")
MARKS = ("run", "parse-only", "save", "settings", "values", "fragment")
WHERE = ("", "long", "installed")
"""What `run` may say besides."""
_FENCE = re.compile(
    r"^(?: *<!-- (?P<mark>[a-z-]+)(?:: (?P<more>[^>]*?))? -->\n+)?(?P<indent> *)```(?P<language>\w*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, how it is to be tried (`more`: reason, file), what is in it."""

    page: str
    line: int
    language: str
    mark: str
    more: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The simple commands of a block of commands, as words; also those inside `$(...)` and pipes."""
        return list(_commands(self.text)) if self.language == "sh" else []

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The Kubernetes objects in a block of YAML."""
        if self.language != "yaml" or self.mark == "fragment":
            return []
        found = [one for one in yaml.safe_load_all(self.text) if isinstance(one, dict)]
        return [one for one in found if "apiVersion" in one and "kind" in one]


def pages() -> list[Path]:
    """README and the pages of the docs, but those that have tests of their own."""
    apart = {path for pattern in ELSEWHERE for path in ROOT.glob(pattern)}
    return [ROOT / "README.md", *sorted(set(ROOT.glob("docs/**/*.md")) - apart)]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text()
    name = str(page.relative_to(ROOT))
    return [_block(name, text, match) for match in _FENCE.finditer(text)]


def in_sentences(page: Path) -> list[Block]:
    """Commands that stand in a sentence, in backquotes; they are checked, not run."""
    text = re.sub(
        r"^ *```.*?^ *```$", lambda found: "\n" * found[0].count("\n"), page.read_text(), flags=re.M | re.S
    )
    name = str(page.relative_to(ROOT))
    return [
        Block(name, text[: match.start()].count("\n") + 1, "sh", "parse-only", "in a sentence", match[1])
        for match in re.finditer(r"`((?:kubectl|helm|fairlane) [^`]+)`", text)
    ]


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def _block(page: str, text: str, match: re.Match[str]) -> Block:
    line = text[: match.start("language")].count("\n") + 1
    indent = match["indent"]
    body = "".join(one.removeprefix(indent) for one in match["text"].splitlines(keepends=True))
    return Block(page, line, match["language"], match["mark"] or "", match["more"] or "", body)


def _commands(text: str) -> Iterator[list[str]]:
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        plain = re.sub(r"(^|\s)#.*$", "", line)
        inner = re.findall(r"\$\(([^()]*)\)", plain)
        for part in [*inner, re.sub(r"\$\([^()]*\)", "SUBSTITUTED", plain)]:
            for simple in re.split(r"\|\||&&|[|;]|(?<!-)\s--\s", part):
                words = [word for word in shlex.split(simple) if not _is_plumbing(word)]
                while words and (words[0] in ("eval", "time", "export") or re.match(r"[A-Z_]+=", words[0])):
                    words = words[1:]
                if words:
                    yield words


def _is_plumbing(word: str) -> bool:
    return word.startswith((">", "<", "2>"))
