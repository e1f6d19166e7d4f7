"""Which checkpoints can be read: our own, the version before, and newer ones that say that they can be.

A state carries the `version` of whoever wrote it, and `readable_by`, the
oldest version that may read it: who adds a field that can be ignored leaves
`readable_by` as it is, who changes what a field means raises it. So accounts
survive an upgrade and the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_NOT_YET = {"ended": (), "ended_work": 0.0, "running": {}}
"""Of a charge of version 1, which did not tell pods apart: those still there count from their starts."""


def check(state: Mapping[str, Any], oldest: int, ours: int) -> None:
    """Raises `ValueError` for a state that cannot be read by us, who know versions `oldest` to `ours`."""
    version = state.get("version")
    if not isinstance(version, int) or version < oldest:
        raise ValueError(f"the checkpoint has version {version!r}; versions {oldest} to {ours} can be read")
    needed = state.get("readable_by", version)
    if version > ours and needed > ours:
        raise ValueError(
            f"the checkpoint has version {version}, which can be read by version {needed} or newer, not "
            f"{ours}: a newer Fairlane wrote it"
        )


def known(plain: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The fields that we know; a newer version may have added some."""
    return {name: plain[name] for name in names if name in plain}


def charge_as_of_now(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A charge with the fields that version 1 had not."""
    return {**_NOT_YET, **plain}
