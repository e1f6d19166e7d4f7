"""The files of a support bundle, and sentences about what is not among them."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.edge.redaction import Redactor

FILE_CHARACTERS_MAX = 4 * 2**20
"""The end of a longer file is kept: what happened last."""
CHARACTERS_MAX = 48 * 2**20
"""Of all files; secrets are searched for at about a megabyte a second."""
LAST = "logs/"
"""Files that go first when there is no room for all."""


@dataclass
class Bundle:
    """Files by name, and sentences about what is not among them."""

    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, text: str) -> None:
        """Take a file. Of one that is too long twice as much is kept as will be written: see `redacted`."""
        self.files[name] = text[-2 * FILE_CHARACTERS_MAX :]

    def lack(self, name: str, why: object) -> None:
        """Say why a file is not there."""
        self.left_out.append(f"{name}: {why}".strip())


def redacted(bundle: Bundle, redact: Redactor) -> Bundle:
    """The bundle without secrets, with its names of files too, and not larger than is allowed.

    Long files are cut to their length afterwards: in half a secret nobody would see one.
    """
    clean = Bundle(left_out=[redact(line) for line in bundle.left_out])
    room = CHARACTERS_MAX
    for name in sorted(bundle.files, key=lambda name: (name.startswith(LAST), name)):
        if room <= 0:
            clean.lack(
                redact(name), f"the bundle has no room for it, which ends at {CHARACTERS_MAX} characters"
            )
            continue
        kept, own = redact(bundle.files[name]), redact(name)
        if len(kept) > FILE_CHARACTERS_MAX:
            clean.lack(own, f"all but the last {FILE_CHARACTERS_MAX} characters")
        clean.files[own] = kept[-FILE_CHARACTERS_MAX:]
        room -= len(clean.files[own])
    return clean
