"""The emulated exporters tell what real ones would: noisy, late, with gaps."""

from __future__ import annotations

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from testbed.physics import exporters
from testbed.physics.world import NodeSpec, World

WORLD = World(1, [NodeSpec(f"n{i}", f"site-{i % 2}", "5g") for i in range(4)])


def measured(rounds: int = 3) -> exporters.Measurements:
    found = exporters.Measurements(WORLD, np.random.default_rng(0))
    for number in range(rounds):
        found.measure(WORLD.at(number), np.zeros(4), number, 1000.0 + number)
    return found


def samples(collector: object) -> dict[tuple[str, str], float]:
    text = exporters.render(collector).decode()  # type: ignore[arg-type]
    families = text_string_to_metric_families(text)
    return {(s.name, s.labels.get("target", "")): s.value for f in families for s in f.samples}


def test_nothing_is_published_before_the_first_round() -> None:
    assert exporters.Measurements(WORLD, np.random.default_rng(0)).published is None


def test_a_round_is_published_late() -> None:
    published = measured(3).published
    assert published is not None
    assert published.at_s == 1001.0


def test_a_lost_round_has_no_series_instead_of_a_zero() -> None:
    published = measured().published
    assert published is not None
    published.rtt[0, 2] = np.nan
    found = samples(exporters.PingExporter(WORLD, published, 0))
    assert ("ping_rtt_mean_seconds", "n2") not in found
    assert ("ping_rtt_mean_seconds", "n1") in found


def test_counters_grow_with_the_load() -> None:
    counters = exporters.Counters(WORLD)
    counters.add(WORLD, WORLD.at(0), np.zeros(4), np.zeros(4), 10.0)
    before = samples(exporters.NodeExporter(WORLD, counters, 0, 1.0))
    counters.add(WORLD, WORLD.at(1), np.zeros(4), np.full(4, 1e6), 10.0)
    after = samples(exporters.NodeExporter(WORLD, counters, 0, 11.0))
    name = ("node_network_receive_bytes_total", "")
    assert after[name] >= before[name] + 1e6


def test_readings_are_near_the_truth_but_not_the_truth() -> None:
    found = measured(1)
    found.measure(WORLD.at(0), np.zeros(4), 0, 1.0)
    published = found.published
    assert published is not None
    ratio = published.rtt / WORLD.at(0).rtt
    known = ratio[np.isfinite(ratio)]
    assert 0.7 < known.min() < known.max() < 1.3
    assert not np.allclose(known, 1.0)


def test_a_probe_shares_the_link_with_running_transfers() -> None:
    quiet, busy = (exporters.Measurements(WORLD, np.random.default_rng(0)) for _ in range(2))
    quiet.measure(WORLD.at(0), np.zeros(4), 0, 1.0)
    busy.measure(WORLD.at(0), np.full(4, 9.0), 0, 1.0)
    assert quiet.published is not None
    assert busy.published is not None
    assert np.nanmedian(busy.published.transfer / quiet.published.transfer) > 2
