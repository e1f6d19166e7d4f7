"""Objects with arrays between two processes: whole, without copies of them in one string."""

import pickle
from multiprocessing import Pipe
from threading import Thread
from types import MappingProxyType

import numpy as np
import pytest
from placing_builders import a_snapshot

from scheduler.edge import crossing


def test_arrays_and_read_only_views_arrive_as_they_were() -> None:
    ours, theirs = Pipe()
    table = np.arange(600_000.0).reshape(3, -1).T  # more than the pipe holds at once, columns together
    sender = Thread(target=crossing.send, args=(ours, (MappingProxyType({"a": table}), a_snapshot(), "text")))
    sender.start()
    view, snapshot, text = crossing.receive(theirs)
    sender.join()
    assert type(view) is MappingProxyType
    assert np.array_equal(view["a"], table)
    assert view["a"].flags.f_contiguous
    assert text == "text"
    before = a_snapshot()
    assert (snapshot.epoch, snapshot.nodes, set(snapshot.pair_readings)) == (
        before.epoch,
        before.nodes,
        set(before.pair_readings),
    )
    assert np.array_equal(snapshot.node_readings["cpu_use"], before.node_readings["cpu_use"])
    assert snapshot.pair_readings["rtt"].from_node(0)[1] == 0.01


def test_a_sender_that_goes_in_the_middle_of_an_array_is_an_end() -> None:
    ours, theirs = Pipe()
    ours.send_bytes(pickle.dumps(([8], pickle.dumps("no array"))))  # eight bytes are to follow
    ours.close()
    with pytest.raises(EOFError):
        crossing.receive(theirs)
