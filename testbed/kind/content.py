"""What an image holds and what takes the room, told by itself as JSON; runs in it, by its Python.

Names and versions come from other sources than those of `sbom.py`, which is held against them:
folders' names, and `dpkg-query`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

SITE = Path("/opt/fairlane/site")
OURS = Path("/opt/fairlane")
SBOM = Path("/usr/share/fairlane/sbom.spdx.json")


def python_versions(site: Path) -> dict[str, str]:
    """Distribution -> version, by the names of the folders that installers leave."""
    names = (folder.name.removesuffix(".dist-info").split("-") for folder in site.glob("*.dist-info"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in names}


def debian_versions() -> dict[str, str]:
    """Package -> version, as dpkg tells."""
    form = "${db:Status-Abbrev}\t${Package}\t${Version}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True)
    rows = (line.split("\t") for line in listed.stdout.splitlines())
    return {name: version for state, name, version in rows if state.startswith("ii")}


def sizes(root: Path) -> dict[str, int]:
    """What takes the room -> bytes: each library with what it brings along, our sources, Debian."""
    found: Counter[str] = Counter()
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not os.path.ismount(os.path.join(folder, name))]
        for file in files:
            path = Path(folder, file)
            found[_part(path.relative_to(root))] += path.lstat().st_size
    return dict(found)


def _part(path: Path) -> str:
    inside = Path("/") / path
    if inside.is_relative_to(SITE):
        return inside.relative_to(SITE).parts[0].removesuffix(".libs").split("-")[0]
    return "Fairlane" if inside.is_relative_to(OURS) else "Debian with Python"


def main() -> None:
    """All of it on standard output."""
    told = {
        "sbom": json.loads(SBOM.read_text()),
        "Python": python_versions(SITE),
        "Debian": debian_versions(),
        "sizes": sizes(Path("/")),
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
