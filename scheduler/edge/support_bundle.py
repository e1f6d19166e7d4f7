"""The files of a support bundle, and sentences about what is not among them."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler.edge.redaction import Redactor

FILE_CHARACTERS_MAX = 8 * 2**20
"""The end of a longer file is kept: what happened last."""


@dataclass
class Bundle:
    """Files by name, and sentences about what is not among them."""

    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def lack(self, name: str, why: object) -> None:
        """Say why a file is not there."""
        self.left_out.append(f"{name}: {why}")


def redacted(bundle: Bundle, redact: Redactor) -> Bundle:
    """The bundle without secrets, with its names of files too.

    Long files are cut afterwards: in half a secret nobody would see one.
    """
    clean = Bundle(left_out=[redact(line) for line in bundle.left_out])
    for name, text in bundle.files.items():
        kept, own = redact(text), redact(name)
        if len(kept) > FILE_CHARACTERS_MAX:
            clean.lack(own, f"all but the last {FILE_CHARACTERS_MAX} characters")
        clean.files[own] = kept[-FILE_CHARACTERS_MAX:]
    return clean
