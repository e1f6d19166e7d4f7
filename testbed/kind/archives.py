"""Images as files in a folder that every node can read: how they get into the nodes' stores.

`kind load` pipes an archive through five processes for each node, which took minutes for a gigabyte
where this takes seconds. An archive is written once for each tag and replaces that of an older tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from testbed.kind.docker import Docker
from testbed.progress import Progress

MOUNTED = "/archives"
"""Where a node sees the folder."""
SAVE_S_MAX = 600.0
IMPORT_S_MAX = 900.0
IMPORT = "ctr --namespace k8s.io images import --local --digests"


class Archives:
    """The archives in `folder`, and their way into nodes."""

    def __init__(self, docker: Docker, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self._docker = docker
        self._progress = progress

    def load(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Put the named images into each node's store; raises `CommandError` where one cannot be."""
        images = list(dict.fromkeys(image for wanted in missing.values() for image in wanted))
        if not images:
            return
        names = ", ".join(image.rsplit("/", 1)[-1].split(":", maxsplit=1)[0] for image in images)
        with self._progress.task(f"loading {names}") as task:
            for image in images:
                self._save(image)
            with ThreadPoolExecutor(max_workers=len(missing)) as pool:
                for _ in pool.map(self._import, missing, missing.values()):
                    pass
        self._progress.say(f"loaded {names} into the nodes in {task.elapsed_s:.0f} s")

    def _save(self, image: str) -> None:
        archive = self.folder / archive_name(image)
        if archive.exists():
            return
        if not self._docker.has_image(image):
            self._docker.run("pull", "-q", image)
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_suffix(".part")
        self._docker.run("save", "-o", str(unfinished), image, timeout_s=SAVE_S_MAX)
        any_tag = quote(image.rsplit(":", 1)[0] + ":", safe="") + "*.tar"
        for older in self.folder.glob(any_tag):
            older.unlink()
        unfinished.rename(archive)

    def _import(self, node: str, images: Sequence[str]) -> None:
        script = "\n".join(f"{IMPORT} {MOUNTED}/{archive_name(image)}" for image in images)
        self._docker.run("exec", node, "sh", "-ec", script, timeout_s=IMPORT_S_MAX)


def archive_name(image: str) -> str:
    """File name of an image's archive: no two images share one."""
    return quote(image, safe="") + ".tar"
