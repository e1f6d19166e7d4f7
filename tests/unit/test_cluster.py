"""The cluster as placing sees it: residents, gangs, assumed bindings, numbered changes."""

import math
from dataclasses import replace

from placing_builders import JOB, a_pod, node_of

from scheduler.core.cluster import ASSUMED_S, CHANGES_KEPT, Cluster


def a_cluster(*nodes: str) -> Cluster:
    cluster = Cluster()
    cluster.set_nodes([node_of(name) for name in nodes or ("a", "b")])
    return cluster


def test_node_facts_come_from_labels_allocatable_and_images() -> None:
    cluster = Cluster()
    labels = {"topology.kubernetes.io/zone": "z1", "fairlane.dev/nic-class": "fast"}
    cluster.set_node(node_of("a", "3920m", labels, ["img:1"]))
    facts = cluster.facts["a"]
    assert (facts.zone, facts.nic_class, facts.allocatable_cpu) == ("z1", "fast", 3.92)
    assert facts.images == {"img:1"}


def test_residents_are_the_unfinished_pods_on_a_node() -> None:
    cluster = a_cluster()
    cluster.set_pod(a_pod("1", node="a"))
    cluster.set_pod(a_pod("2", replace(JOB, input_bytes=float("nan"), framework="spark"), node="a"))
    cluster.set_pod(a_pod("3", node="a", finished=True))
    facts = cluster.facts["a"]
    assert (facts.residents, facts.network_heavy, facts.requested_cpu) == (2, 1, 2.0)
    assert dict(facts.residents_by_framework) == {"batch": 1, "spark": 1}


def test_a_pod_that_ends_moves_or_goes_leaves_its_node() -> None:
    cluster = a_cluster()
    for uid in "123":
        cluster.set_pod(a_pod(uid, node="a"))
    cluster.set_pod(a_pod("1", node="a", finished=True))
    cluster.remove_pod("2")
    cluster.set_pods([a_pod("4", node="b")])  # a relist without pod 3
    assert (cluster.facts["a"].residents, cluster.facts["b"].residents) == (0, 1)


def test_residents_of_a_node_that_is_listed_late_count() -> None:
    cluster = a_cluster("a")
    cluster.set_pod(a_pod("1", node="late"))
    assert "late" not in cluster.facts
    cluster.set_node(node_of("late"))
    assert cluster.facts["late"].residents == 1


def test_an_assumed_binding_counts_until_the_watch_settles_it() -> None:
    cluster = a_cluster()
    cluster.set_pod(a_pod("1"))
    cluster.assume(a_pod("1"), "a", now_s=0.0)
    assert cluster.facts["a"].residents == 1
    cluster.set_pod(a_pod("1"))  # a status update of the pod that still waits
    assert cluster.facts["a"].residents == 1
    cluster.set_pod(a_pod("1", node="b"))  # kube-scheduler decided otherwise
    assert (cluster.facts["a"].residents, cluster.facts["b"].residents) == (0, 1)
    cluster.expire(now_s=1e9)
    assert cluster.facts["b"].residents == 1


def test_an_assumption_that_is_not_confirmed_is_taken_back() -> None:
    cluster = a_cluster()
    cluster.set_pod(a_pod("1"))
    cluster.assume(a_pod("1"), "a", now_s=0.0)
    assert list(cluster.waiting) == []
    cluster.expire(ASSUMED_S - 1)
    assert cluster.facts["a"].residents == 1
    assert cluster.expire(ASSUMED_S) == 1
    assert cluster.facts["a"].residents == 0
    assert [pod.uid for pod in cluster.waiting] == ["1"]


def test_an_assumed_pod_that_nobody_ever_saw_is_forgotten() -> None:
    cluster = a_cluster()
    cluster.assume(a_pod("ghost"), "a", now_s=0.0)
    cluster.expire(ASSUMED_S)
    assert (cluster.pods, cluster.facts["a"].residents) == (0, 0)


def test_a_bound_pod_cannot_be_assumed_elsewhere() -> None:
    cluster = a_cluster()
    cluster.set_pod(a_pod("1", node="b"))
    cluster.assume(a_pod("1"), "a", now_s=0.0)
    assert (cluster.facts["a"].residents, cluster.facts["b"].residents) == (0, 1)


def left_s(cluster: Cluster, node: str, now_s: float) -> float:
    return cluster.facts[node].transfer_left_s(now_s)


def test_inputs_on_one_node_arrive_one_after_the_other_whoever_comes_first() -> None:
    cluster = a_cluster()
    cluster.assume(a_pod("1"), "a", now_s=100.0, link_s=10.0)
    cluster.assume(a_pod("2"), "a", now_s=104.0, link_s=4.0)
    assert [left_s(cluster, "a", now_s) for now_s in (104.0, 110.0, 120.0)] == [10.0, 4.0, 0.0]
    cluster.set_pod(a_pod("2", node="a", finished=True))
    assert left_s(cluster, "a", 110.0) == 4.0, "the first has had half of the link meanwhile"
    cluster.assume(a_pod("3"), "a", now_s=200.0, link_s=5.0)
    assert left_s(cluster, "a", 201.0) == 4.0


def test_an_input_counts_where_kube_scheduler_sent_the_pod() -> None:
    cluster = a_cluster()
    cluster.set_pod(a_pod("1"))
    cluster.assume(a_pod("1"), "a", now_s=100.0, link_s=10.0)
    cluster.set_pod(a_pod("1", node="b"))
    assert (left_s(cluster, "a", 101.0), left_s(cluster, "b", 101.0)) == (0.0, 9.0)


def test_a_pod_asked_about_twice_or_never_bound_transfers_once_or_not_at_all() -> None:
    cluster = a_cluster()
    cluster.assume(a_pod("other"), "a", now_s=100.0, link_s=1.0)
    cluster.set_pod(a_pod("other", node="a"))
    for now_s in (100.0, 101.0):
        cluster.assume(a_pod("1"), "a", now_s, link_s=30.0)
    assert left_s(cluster, "a", 101.0) == 30.0
    cluster.expire(101.0 + ASSUMED_S)
    assert left_s(cluster, "a", 100.5) == 0.5


def test_of_a_node_that_was_away_nobody_knows_what_its_pods_still_receive() -> None:
    cluster = a_cluster()
    cluster.assume(a_pod("1"), "a", now_s=100.0, link_s=10.0)
    cluster.remove_node("a")
    cluster.set_node(node_of("a"))
    assert math.isnan(left_s(cluster, "a", 101.0))
    cluster.expire(100.0 + ASSUMED_S)
    assert left_s(cluster, "a", 101.0) == 0.0


def test_of_a_pod_that_others_placed_nobody_knows_what_it_still_transfers() -> None:
    cluster = a_cluster()
    cluster.assume(a_pod("1"), "a", now_s=100.0, link_s=10.0)
    cluster.set_pod(a_pod("stranger", node="a"))
    assert math.isnan(left_s(cluster, "a", 101.0))
    cluster.remove_pod("stranger")
    assert left_s(cluster, "a", 101.0) == 9.0


def test_peers_are_the_placed_members_of_the_gang_and_the_driver_is_known() -> None:
    cluster = a_cluster()
    cluster.set_pod(a_pod("1", gang="team/g", node="b", is_driver=True))
    cluster.set_pod(a_pod("2", gang="team/g", node="a"))
    cluster.set_pod(a_pod("3", gang="team/g", node="a", finished=True))
    cluster.set_pod(a_pod("4", gang="other/g", node="a"))
    me = a_pod("5", gang="team/g")
    job = cluster.job_of(me)
    assert (job.peer_nodes, job.driver_node) == (("a", "b"), "b")
    assert cluster.job_of(a_pod("6")).peer_nodes == ()


def test_waiting_are_only_the_unbound_pods_of_our_scheduler() -> None:
    cluster = a_cluster()
    cluster.set_pods([a_pod("1"), a_pod("2", scheduler="default-scheduler"), a_pod("3", node="a")])
    assert [pod.uid for pod in cluster.waiting] == ["1"]


def test_changes_are_told_newest_first_and_once() -> None:
    cluster = a_cluster()
    start = cluster.version
    cluster.set_pod(a_pod("1", node="a"))
    cluster.set_pod(a_pod("2", node="b"))
    cluster.set_pod(a_pod("3", node="a"))
    assert cluster.changes_since(start) == ["a", "b"]
    assert cluster.changes_since(cluster.version) == []


def test_an_update_that_changes_nothing_for_placing_is_no_change() -> None:
    cluster = a_cluster()
    cluster.set_pod(a_pod("1", node="a"))
    start = cluster.version
    cluster.set_pod(a_pod("1", node="a"))
    cluster.set_node(node_of("a"))
    assert cluster.version == start


def test_too_many_changes_are_told_as_unknown() -> None:
    cluster = a_cluster()
    start = cluster.version
    for _ in range(CHANGES_KEPT // 2 + 1):
        cluster.set_pod(a_pod("1", node="a"))
        cluster.remove_pod("1")
    assert cluster.changes_since(start) is None


def test_a_node_that_goes_and_comes_raises_the_nodes_version() -> None:
    cluster = a_cluster()
    start = cluster.nodes_version
    cluster.remove_node("a")
    cluster.remove_node("a")
    cluster.set_node(node_of("a"))
    assert cluster.nodes_version == start + 2
