"""Which table stands in for one that is not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from placing_builders import JOB, a_basis, a_snapshot, a_table

from scheduler.core.types import key_of
from scheduler.edge.score_tables import ScoreTables


def tables(*kept: tuple[float, int]) -> ScoreTables:
    """Of one job in so many sizes (times 1 GB), each made at its epoch."""
    made = ScoreTables(max_tables=16, idle_s=60.0)
    for size, epoch in kept:
        job = replace(JOB, input_bytes=size * 1e9)
        made.put(a_table(basis=a_basis(job, a_snapshot(epoch=epoch))), now_s=0.0)
    return made


@pytest.mark.parametrize(
    ("kept", "chosen"),
    [
        (((1.7, 8), (1.2, 8)), 1.2),
        (((1.2, 7), (1.7, 8)), 1.7),
        (((1.2, 7), (5.0, 8)), 1.2),
        (((1.2, 7), (0.2, 8)), 1.2),
        (((1.2, 4), (5.0, 8)), 5.0),
        (((9.0, 7), (5.0, 8)), 5.0),
    ],
    ids=[
        "nearest size of one epoch",
        "newer reading of a size that is near enough",
        "older reading rather than a far larger size",
        "older reading rather than a far smaller size",
        "far size rather than a reading that is long past",
        "newest where all are far",
    ],
)
def test_a_table_stands_in_by_epoch_unless_its_size_is_far(
    kept: tuple[tuple[float, int], ...], chosen: float
) -> None:
    found = tables(*kept).nearest(key_of(JOB), now_s=1.0)
    assert found is not None
    assert found.table.job.input_bytes == chosen * 1e9
