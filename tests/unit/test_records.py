"""Decisions and tables as they travel and as they are read back."""

import zlib

import msgspec
import numpy as np
import pytest
from placing_builders import NODES, a_decision, a_pod, a_table, a_view

from model.placement import NodeFacts
from model.schema import NAMES, POSITION
from scheduler.core.ranking import Exploration, rank
from scheduler.core.records import (
    Batch,
    Decision,
    Judged,
    Moment,
    chosen_row,
    read_decision,
    read_rows,
    with_rows,
)
from scheduler.core.table_records import ReadTable, read_table, table_record
from scheduler.core.types import Corrections, Fallback, ScoreTable


def stored(table: ScoreTable) -> ReadTable:
    sent = table_record(table)
    return read_table(sent.nodes, sent.features, sent.quantiles, sent.feature_names)


def test_a_table_survives_the_way_to_the_store() -> None:
    table = a_table()
    read = stored(table)
    assert read.nodes == NODES
    assert np.allclose(read.features, table.features, equal_nan=True, rtol=1e-6)
    assert np.allclose(np.exp(read.quantiles[1]), [10.0, 11.0, 20.0, 40.0], rtol=1e-6)


def test_a_table_packed_row_by_row_as_before_is_still_read() -> None:
    table = a_table()
    sent = table_record(table)
    before = zlib.compress(np.ascontiguousarray(table.features, dtype="<f4").tobytes())
    read = read_table(sent.nodes, before, sent.quantiles, sent.feature_names)
    assert np.array_equal(read.features, stored(table).features, equal_nan=True)


def test_a_decision_is_read_back_with_its_shifts_and_corrected_rows() -> None:
    table = a_table()
    corrections = Corrections(np.array([0.0, np.log(2.0), 0.0, 0.0]), 1)
    positions = np.array([1, 3])
    exploring = Exploration(0.2, everywhere=True)
    ranking = rank(table.ranked[positions], table.sigma[positions], np.zeros_like, 5, exploring)
    assert ranking is not None
    moment = Moment("d", 1.0, 0.1, 1, 2.0, Fallback.NONE)
    shifted = corrections.shift.nonzero()[0]
    crowded = a_view(b=NodeFacts(zone="z", allocatable_cpu=8.0, residents=99))
    judged = Judged(table, ranking.in_rows(positions), shifted, corrections.shift[shifted], crowded)
    record = Decision(a_pod(), moment, lambda: ("d", "stranger", "b"), judged).record()
    seen, kept = read_decision(record, stored(table)), stored(table).features[1]
    assert seen.offered.tolist() == [False, True, False, True]
    assert seen.times_s[1].tolist() == pytest.approx([10.0, 22.0, 20.0, 40.0])
    own = POSITION["residents"]
    assert (seen.features[1, own], kept[own]) == (99.0, 0.0)
    assert np.array_equal(np.delete(seen.features[1], own), np.delete(kept, own), equal_nan=True)
    row = chosen_row(record, stored(table), "b")
    assert row is not None
    assert np.array_equal(read_rows([row.features], len(NAMES))[0], seen.features[1], equal_nan=True)
    assert seen.propensity.tolist() == pytest.approx([0.0, 0.9, 0.0, 0.1])


def test_the_chosen_row_is_that_of_the_whole_decision() -> None:
    table = stored(a_table())
    record = a_decision()
    whole = read_decision(record, table)
    row = chosen_row(record, table, "b")
    assert row is not None
    assert (row.p50_s, row.propensity) == (pytest.approx(whole.times_s[1, 1]), 0.0)
    assert np.allclose(read_rows([row.features], len(NAMES))[0], whole.features[1], equal_nan=True)
    assert chosen_row(record, table, "stranger") is None


def test_rows_built_later_replace_those_of_the_table() -> None:
    table = a_table()
    rows = np.full((1, len(NAMES)), 5.0)
    seen = read_decision(with_rows(a_decision(table=table), [2], rows), stored(table))
    assert (seen.features[2] == 5.0).all()


def test_a_call_without_opinion_is_recorded_too() -> None:
    moment = Moment("d", 1.0, 0.1, 0, 0.0, Fallback.NO_TELEMETRY)
    record = Decision(a_pod(), moment, lambda: ("a", "b", "c")).record()
    assert (record.table_id, record.listed, record.candidates) == ("", [], 3)
    assert record.reason == "no_telemetry"


def test_a_batch_survives_messagepack() -> None:
    batch = Batch([table_record(a_table())], [a_decision()])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=Batch) == batch


def test_a_damaged_table_is_refused() -> None:
    sent = table_record(a_table())
    for features in (b"rubbish", b"planes:rubbish", sent.features[:-9]):
        with pytest.raises(ValueError, match="cannot be read"):
            read_table(sent.nodes, features, sent.quantiles, sent.feature_names)
    with pytest.raises(ValueError, match="reshape"):
        read_table(sent.nodes, sent.features, sent.quantiles, sent.feature_names[1:])
