"""Archives of images: which are written, and what goes to which node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.kind.archives import MOUNTED, Archives, archive_name
from testbed.progress import Progress


class Recorder:
    """Takes docker commands down, and writes the file that `docker save` would."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []

    def has_image(self, _tag: str) -> bool:
        return True

    def run(self, *words: str, **_: Any) -> str:
        self.commands.append(words)
        if words[0] == "save":
            Path(words[2]).write_text("archive")
        return ""


def loaded(folder: Path, missing: dict[str, list[str]]) -> list[tuple[str, ...]]:
    docker = Recorder()
    Archives(docker, folder, Progress(quiet=True)).load(missing)  # type: ignore[arg-type]
    return docker.commands


def test_an_archive_is_written_once_for_all_nodes_and_runs(tmp_path: Path) -> None:
    missing = {"a": ["x/one:1"], "b": ["x/one:1"]}
    assert [words[0] for words in loaded(tmp_path, missing)] == ["save", "exec", "exec"]
    assert [words[0] for words in loaded(tmp_path, missing)] == ["exec", "exec"]


def test_a_new_tag_replaces_the_archive_of_the_older_and_of_no_other_image(tmp_path: Path) -> None:
    loaded(tmp_path, {"a": ["x/one:1", "x/one-more:1"]})
    loaded(tmp_path, {"a": ["x/one:2"]})
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept == {archive_name("x/one:2"), archive_name("x/one-more:1")}


def test_a_node_gets_what_it_misses_and_nothing_else(tmp_path: Path) -> None:
    commands = loaded(tmp_path, {"a": ["x/one:1"], "b": ["x/two:1"]})
    scripts = {words[1]: words[-1] for words in commands if words[0] == "exec"}
    assert f"{MOUNTED}/{archive_name('x/one:1')}" in scripts["a"]
    assert "two" not in scripts["a"]


def test_nothing_missing_is_nothing_done(tmp_path: Path) -> None:
    assert loaded(tmp_path, {}) == []


def test_names_of_different_images_never_meet() -> None:
    names = ["a/b:1", "a/b:2", "a_b:1", "registry:5000/a/b:1"]
    assert len({archive_name(one) for one in names}) == len(names)
