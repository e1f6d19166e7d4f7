"""The image of Fairlane for a cluster: `make image IMAGE=registry/fairlane:1.0`.

    python -m testbed.kind.image IMAGE [FOLDER]

builds what the kind cluster runs, by the same code, under the name IMAGE, and puts the list of what is in it
(SPDX) into FOLDER (dist). The engine is whatever answers to `docker`, else one of our own. Ours is stopped
again, so that what it made is left as an archive in FOLDER.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.binaries import BinaryError
from testbed.kind.cluster import KindCluster
from testbed.kind.inspection import inspect
from testbed.kind.runtime import why_none
from testbed.kind.shell import CommandError
from testbed.progress import Progress


def build(image: str, folder: Path, progress: Progress) -> None:
    """Make the image and its list. Raises CommandError when it is wrong or too large."""
    cluster = KindCluster(progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    with _engine(cluster) as ours:
        made = cluster.images.fairlane
        found = cluster.images.inspection or inspect(cluster.docker, made)
        cluster.docker.run("tag", made, image)
        if ours:
            cluster.docker.run("save", "-o", str(folder / "fairlane.tar"), image)
    listed = folder / "fairlane.spdx.json"
    listed.write_text(json.dumps(found.sbom, indent=1))
    if not cluster.images.inspection:
        progress.say(found.told())
    progress.say(f"{image} on {cluster.images.base}; what is in it: {listed}")


@contextmanager
def _engine(cluster: KindCluster) -> Iterator[bool]:
    """An engine that answers; whether it is one that we started."""
    if missing := why_none(cluster.docker):
        raise CommandError(f"no container runtime can be had: {missing}")
    there = cluster.docker.answers
    cluster.start_engine()
    try:
        yield not there
    finally:
        if not there:
            cluster.docker.stop()


def main() -> int:
    """The exit code."""
    words = sys.argv[1:]
    if not 1 <= len(words) <= 2:
        print("python -m testbed.kind.image IMAGE [FOLDER]", file=sys.stderr)
        return 2
    try:
        build(words[0], Path(words[1] if len(words) > 1 else "dist"), Progress())
    except (CommandError, BinaryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
