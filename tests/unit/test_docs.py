"""What the docs say can be said: marks, links, commands with their options, settings and values."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from cli_examples import PAGE as CLI
from cli_examples import Example, examples
from docs_blocks import LANGUAGES, MARKS, ROOT, WHERE, Block, all_blocks, in_sentences, pages
from typer.main import get_command

from scheduler.cli.main import COMMANDS, app
from scheduler.config import Settings
from testbed.chart.schema import values_schema

BLOCKS = all_blocks()
SAID = [*BLOCKS, *(one for page in pages() for one in in_sentences(page))]
SCHEMA = values_schema()
NEEDS_A_REASON = ("parse-only", "fragment")
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer has a Click of its own."""
HELM_VERBS = ("install", "upgrade", "rollback", "uninstall", "test", "template", "lint", "status")


def named(found: list[Block]) -> Any:
    return pytest.mark.parametrize("block", found, ids=map(str, found))


@named(BLOCKS)
def test_every_block_says_what_it_is_and_how_it_is_tried(block: Block) -> None:
    assert block.language in LANGUAGES, "say sh, yaml, json, or text for output and pictures"
    assert block.mark in ("", *MARKS), f"unknown mark {block.mark!r}"
    if block.language == "sh":
        assert block.mark in ("run", "parse-only"), "put <!-- run --> or <!-- parse-only: REASON --> above"
        assert block.more in WHERE or block.mark != "run"
    if block.language == "yaml" and not block.objects:
        assert block.mark in ("settings", "values", "fragment", "save"), "say whose YAML it is"
    if block.mark in NEEDS_A_REASON:
        assert len(block.more) > 10, "say why it cannot be run or read here"
    if block.mark == "save":
        assert block.more, "say under which name"


def fairlane_commands() -> list[Any]:
    found = [(block, words) for block in BLOCKS for words in block.commands if words[0] == "fairlane"]
    return [pytest.param(words, id=f"{block} {' '.join(words[:3])}") for block, words in found]


@pytest.mark.parametrize("words", fairlane_commands())
def test_every_command_and_option_exists(words: list[str]) -> None:
    _parse(words, whole=True)


def test_what_helm_renders_is_for_the_cluster_that_is_there() -> None:
    """By itself `helm template` takes the newest Kubernetes that it knows, and that kube-scheduler."""
    rendering = [words for block in BLOCKS for words in block.commands if words[:2] == ["helm", "template"]]
    assert rendering
    assert [words for words in rendering if not {"--dry-run=server", "--kube-version"} & set(words)] == []


def said_commands() -> list[Any]:
    found = [one for page in pages() for one in in_sentences(page)]
    return [
        pytest.param(words, id=f"{block} {' '.join(words[:3])}")
        for block in found
        for words in block.commands
        if words[0] == "fairlane" and "..." not in words
    ]


@pytest.mark.parametrize("words", said_commands())
def test_every_command_and_option_in_a_sentence_exists(words: list[str]) -> None:
    _parse(words, whole=False)


@pytest.mark.parametrize("example", examples(), ids=str)
def test_every_example_of_a_command_can_be_typed(example: Example) -> None:
    ours = [words for words in example.commands if words[0] == "fairlane"]
    assert ours, "an example of Fairlane calls it"
    for words in ours:
        _parse(words, whole=True)


def test_the_examples_are_those_of_every_command() -> None:
    """None is lost in putting lines together: every line that begins with the command is one."""
    told = " ".join(one.text for one in examples())
    lines = re.findall(r"^ {2,}((?:watch |[A-Z_]+=\S+ )*fairlane .*)$", CLI.read_text(), re.M)
    assert [line for line in lines if line.rstrip("-") not in told and " ... " not in line] == []
    with_examples = {one.command.split()[1] for one in examples()}
    assert with_examples == set(COMMANDS)


def _parse(words: list[str], *, whole: bool) -> None:
    """Parse as the command line does; a sentence may leave out what is required."""
    try:
        _enter(get_command(app), "fairlane", words[1:], None)
    except typer.Exit:
        return  # --help
    except USAGE_ERROR as error:
        left_out = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError") and not whole
        a_file_of_the_reader = "does not exist" in str(error)
        if not (left_out or a_file_of_the_reader):
            raise


def _enter(command: Any, name: str, words: list[str], parent: Any) -> None:
    """Parse as Click does before it calls anything."""
    context = command.make_context(name, list(words), parent=parent)
    left = [*context._protected_args, *context.args]
    if hasattr(command, "resolve_command") and left:
        found, inner, rest = command.resolve_command(context, left)
        assert inner is not None, f"there is no command {left[0]}"
        _enter(inner, found, rest, context)


def helm_commands() -> list[Any]:
    found = [(block, words) for block in SAID for words in block.commands if words[0] == "helm"]
    return [pytest.param(words, id=f"{block} {' '.join(words[:3])}") for block, words in found]


@pytest.mark.parametrize("words", helm_commands())
def test_helm_is_given_a_chart_that_is_there_and_values_that_it_knows(words: list[str]) -> None:
    assert words[1] in HELM_VERBS
    for word in words:
        if word.startswith("helm/"):
            assert (ROOT / word / "Chart.yaml").exists()
    for option, value in pairwise(words):
        if option in ("--set", "--set-string"):
            for one in re.split(r",(?![^{]*})", value):
                _known(one.split("=", 1)[0].split("."), SCHEMA)


def _known(path: list[str], within: dict[str, Any]) -> None:
    if not path or path == ["settings"]:
        return
    inside = within.get("properties", {})
    assert path[0] in inside, f"the chart has no value {path[0]}; it has {', '.join(inside)}"
    _known(path[1:], _resolved(inside[path[0]]))


def _resolved(part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        target: Any = SCHEMA
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = target
    return part


@named([one for one in BLOCKS if one.mark == "settings"])
def test_settings_are_accepted(block: Block) -> None:
    Settings.model_validate(yaml.safe_load(block.text))


@named([one for one in BLOCKS if one.mark == "values"])
def test_values_are_known_to_the_chart(block: Block) -> None:
    for path in _paths(yaml.safe_load(block.text)):
        _known(path, SCHEMA)


def _paths(value: Any) -> list[list[str]]:
    if not isinstance(value, dict) or not value:
        return [[]]
    return [[key, *rest] for key, inner in value.items() for rest in _paths(inner)]


@pytest.mark.parametrize("page", [*pages(), *ROOT.glob("[!.]*/README.md")], ids=lambda one: str(one.name))
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    outside_of_code = re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_of_code):
        file, _, anchor = target.partition("#")
        if re.match(r"https?://", target):
            continue
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(there), f"{page.name}: {target}"


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
