"""What a testbed is made of, before anything runs: nodes, configuration, options."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.binaries import PROGRAMS
from testbed.configuration import fairlane_settings, laid_over, prometheus_config, scheduler_config
from testbed.control import TestbedError
from testbed.layout import PORTS, Layout, Options, duration_s
from testbed.nodes import data_node_names, nodes, worker_names
from testbed.processes import specs

LAYOUT = Layout(Path("/testbed"), {name: 2000 + i for i, name in enumerate(PORTS)}, {})


def test_workers_fill_the_sites_evenly_and_in_order() -> None:
    made = nodes(Options(nodes=12, sites=3))
    sites = [node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in made[:12]]
    assert sites == ["site-a"] * 4 + ["site-b"] * 4 + ["site-c"] * 4


def test_each_site_has_a_data_node_that_takes_no_pods() -> None:
    stores = nodes(Options(nodes=4, sites=2))[4:]
    assert [node["metadata"]["name"] for node in stores] == ["store-site-a", "store-site-b"]
    assert all(node["spec"]["taints"][0]["effect"] == "NoSchedule" for node in stores)
    assert data_node_names(Options(nodes=4, sites=2)) == ["store-site-a", "store-site-b"]


def test_thousands_of_nodes_have_names_that_sort_and_addresses_of_their_own() -> None:
    options = Options(nodes=5000, sites=5)
    names = worker_names(options)
    assert (names[0], names[-1], sorted(names)) == ("node-0001", "node-5000", names)
    addresses = {node["status"]["addresses"][0]["address"] for node in nodes(options)}
    assert len(addresses) == 5005


def test_the_seed_alone_decides_the_link_classes() -> None:
    def classes(seed: int) -> list[str]:
        made = nodes(Options(nodes=30, seed=seed))
        return [node["metadata"]["labels"]["fairlane.dev/nic-class"] for node in made]

    assert classes(1) == classes(1) != classes(2)


def test_our_scheduler_scores_all_nodes_does_not_preempt_and_survives_the_extender() -> None:
    config = scheduler_config(Options(), LAYOUT, ours=True)
    [profile], [extender] = config["profiles"], config["extenders"]
    assert config["percentageOfNodesToScore"] == 100
    assert profile["plugins"]["postFilter"]["disabled"] == [{"name": "DefaultPreemption"}]
    assert (extender["ignorable"], extender["nodeCacheCapable"]) == (True, True)
    assert extender["filterVerb"] == "filter"
    assert not {"prioritizeVerb", "bindVerb", "preemptVerb", "weight"} & set(extender)


def test_our_scheduler_notes_no_stack_at_every_wait_with_or_without_an_extender() -> None:
    for hints in (False, True):
        ours = scheduler_config(Options(), LAYOUT, ours=True, hints=hints)
        assert ours["enableContentionProfiling"] is False
    assert "enableContentionProfiling" not in scheduler_config(Options(), LAYOUT, ours=False)


def test_what_predictions_count_already_is_not_scored_beside_them_and_all_else_is() -> None:
    for hints in (False, True):
        plugins = scheduler_config(Options(), LAYOUT, ours=True, hints=hints)["profiles"][0]["plugins"]
        off = [one["name"] for one in plugins["score"]["disabled"]]
        assert off == ["ImageLocality", "NodeResourcesBalancedAllocation"]
        assert set(plugins) == {"postFilter", "score"}


def test_one_score_step_outweighs_what_spreading_plugins_can_give_together() -> None:
    [extender] = scheduler_config(Options(extender_verb="prioritize"), LAYOUT, ours=True)["extenders"]
    assert "filterVerb" not in extender
    one_step = 1 * extender["weight"] * 10
    spreading = 100 * (2 + 1)  # PodTopologySpread, NodeResourcesFit
    assert one_step > spreading


def test_the_default_scheduler_is_left_as_it_is() -> None:
    assert not {"extenders", "profiles"} & set(scheduler_config(Options(), LAYOUT, ours=False))


def test_prometheus_scrapes_as_often_as_asked() -> None:
    config = prometheus_config(Options(scrape_interval_s=0.5), LAYOUT)
    assert config["global"]["scrape_interval"] == "500ms"


def test_settings_given_are_laid_over_the_generated_ones_section_by_section() -> None:
    options = Options(settings={"epoch_s": 2.0, "extender": {"max_listed": 3}})
    settings = fairlane_settings(options, LAYOUT, "secret")
    assert settings["epoch_s"] == 2.0
    assert settings["extender"] == {
        "host": "127.0.0.1",
        "port": LAYOUT.ports["extender"],
        "metrics_host": "127.0.0.1",
        "metrics_port": LAYOUT.ports["extender_metrics"],
        "prefix": "/scheduler",
        "max_listed": 3,
    }
    assert laid_over({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}


def test_without_prometheus_there_is_no_telemetry_to_ask_for() -> None:
    settings = fairlane_settings(Options(without=("prometheus",)), LAYOUT, "secret")
    assert settings["prometheus"]["url"] == ""


def test_long_leases_stretch_the_grace_before_a_node_counts_as_lost() -> None:
    manager = specs(Options(lease_s=7200), LAYOUT)["kube-controller-manager"]
    assert "--node-monitor-grace-period=7210s" in manager.argv


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nodes": 0}, "cannot form"),
        ({"nodes": 2, "sites": 3}, "cannot form 3 sites"),
        ({"lease_s": 2}, "lease under 8 s"),
        ({"scrape_interval_s": 0.0}, "scrape interval"),
        ({"without": ("etcd",)}, "cannot leave out etcd"),
    ],
)
def test_impossible_wishes_are_refused_in_a_sentence(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(TestbedError, match=message):
        Options(**wrong)  # type: ignore[arg-type]


def test_durations_have_units() -> None:
    assert [duration_s(text) for text in ("2s", "500ms", "1m", "1.5")] == [2.0, 0.5, 60.0, 1.5]
    with pytest.raises(TestbedError, match="is not a duration"):
        duration_s("soon")


def test_programs_too_old_to_work_together_are_not_accepted() -> None:
    assert not PROGRAMS["etcd"].accepts((3, 4, 23))
    assert PROGRAMS["etcd"].accepts((3, 6))
    assert not PROGRAMS["kube-apiserver"].accepts((1, 35, 9))
    assert PROGRAMS["kube-apiserver"].accepts((1, 37, 0))
