"""What pip fetched, held against the lock file: its versions are pinned by the build, its bytes here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from testbed.kind.sbom import plain
from testbed.kind.shell import CommandError


def hashes_of(report: Mapping[str, Any], lock: str) -> dict[str, str]:
    """Distribution -> sha256 of the file it was installed from, out of pip's report.

    Raises CommandError for a file that the lock does not have.
    """
    locked, found = locked_hashes(lock), {}
    for item in report["install"]:
        name = plain(item["metadata"]["name"])
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256", "")
        if digest not in locked.get(name, ()):
            raise CommandError(
                f"{name}: pip fetched {digest or 'no file'}, which is not in requirements.lock"
            )
        found[name] = digest
    return found


def locked_hashes(lock: str) -> dict[str, set[str]]:
    """Distribution -> sha256 of each of its files that the lock file allows."""
    found: dict[str, set[str]] = {}
    for named in re.finditer(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==((?:.*\\\n)*.*)", lock, re.MULTILINE):
        # one line for each marker that needs another version
        found.setdefault(plain(named[1]), set()).update(re.findall(r"--hash=sha256:([0-9a-f]{64})", named[2]))
    return found
