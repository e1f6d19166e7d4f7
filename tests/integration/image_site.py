"""What the image has of installed packages, without building it: a folder that holds these and no others."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testbed.kind import images


def image_site(folder: Path) -> Path:
    """Links to the files of the dependencies, and of what these need in turn, less what is pruned."""
    site = folder / "site"
    for one in _closure(images._requirements()):
        for file in _files(one):
            target = site / file.relative_to(_root(one))
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(file, target)
    images._prune(site)
    ours = site / f"fairlane-{images._version()}.dist-info"
    ours.mkdir()
    (ours / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fairlane\nVersion: {images._version()}\n")
    return site


def _closure(requirements: list[str]) -> list[Distribution]:
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in {"", *asked.extras} - {extra for other, extra in seen if other == name}:
            seen.add((name, extra))
            one = found.setdefault(name, distribution(name))
            waiting += _needed(one, extra)
    return list(found.values())


def _needed(one: Distribution, extra: str) -> Iterator[Requirement]:
    for text in one.requires or ():
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            yield needed


def _root(one: Distribution) -> Path:
    return Path(str(one.locate_file("")))


def _files(one: Distribution) -> Iterator[Path]:
    """Those that were installed below site-packages, and compiled modules beside them."""
    if one.files is None:
        raise PackageNotFoundError(f"{one.name} does not say which files it has")
    for file in one.files:
        path = _root(one) / file
        if ".." in file.parts or not path.exists() or "__pycache__" in file.parts:
            continue
        yield path
        compiled = Path(importlib.util.cache_from_source(str(path)))
        if path.suffix == ".py" and compiled.exists():
            yield compiled


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system
        shutil.copy2(file, target)
