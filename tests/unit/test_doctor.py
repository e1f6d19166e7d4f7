"""What doctor concludes from facts: the cause is named, and each problem says what to do."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from model.schema import SCHEMA_VERSION
from model.snapshot import NODE_READINGS, PAIR_READINGS, PairReadings, TelemetrySnapshot
from scheduler.cli.doctor import CHECKS, _readings_table, as_plain
from scheduler.config import Settings
from scheduler.edge.diagnosis import Level, diagnose
from scheduler.edge.diagnosis_telemetry import ESSENTIAL, Coverage, coverage
from scheduler.edge.facts import Asked, Facts
from scheduler.edge.node_mapping import NodeIdentity
from scheduler.edge.overview import overview
from scheduler.edge.predictions import CurrentModel
from scheduler.edge.readings import ReadingReport
from scheduler.edge.telemetry import PollerStats

NOW_S = 1_800_000_000.0
NODES = tuple(NodeIdentity(f"n{i}") for i in range(3))
SETTINGS = Settings.model_validate(
    {
        "prometheus": {"url": "http://prometheus:9090"},
        "sources": ["node_exporter", "fairlane_probe"],
        "extender_url": "http://extender:8888",
        "recorder_url": "http://recorder:8890",
        "predictor_address": "predictor:8889",
    }
)
NODE_NAMES = [name for name in ESSENTIAL if name != "rtt"]


def snapshot(unknown: dict[str, list[int]] | None = None, pairs: bool = True) -> TelemetrySnapshot:
    columns = {name: np.full(3, 0.5) for name in NODE_NAMES}
    for name, positions in (unknown or {}).items():
        columns[name][positions] = np.nan
    ends = np.array([0, 1, 2] if pairs else [], dtype=np.intp)
    values = np.full(len(ends), 0.1)
    measured = PairReadings(3, ends, np.roll(ends, 1), values, values)
    return TelemetrySnapshot(
        1,
        NOW_S,
        ("n0", "n1", "n2"),
        columns,
        {name: np.where(np.isnan(column), np.nan, 2.0) for name, column in columns.items()},
        {"rtt": measured, "throughput": measured},
    )


def reports(**changes: ReadingReport) -> tuple[ReadingReport, ...]:
    good = {name: ReadingReport("node_exporter", name, 3, 3, interval_s=15.0) for name in NODE_NAMES}
    good |= {
        name: ReadingReport("fairlane_probe", name, 3, 3, interval_s=15.0) for name in ("rtt", "throughput")
    }
    return tuple({**good, **changes}.values())


GOOD = Facts(
    SETTINGS,
    NOW_S,
    nodes=NODES,
    last_bound_s=NOW_S - 5,
    bound_pods=3,
    snapshot=snapshot(),
    reports=reports(),
    poll=PollerStats(1, last_duration_s=0.1),
    extender=Asked({"tables": 2, "calls": 7, "last_call_s": NOW_S - 5, "epoch_age_s": 3.0}),
    recorder=Asked({"rows": {"decisions": 7}}),
    model=CurrentModel("m1", SCHEMA_VERSION, NOW_S - 600, 400),
    predictor_serving=True,
)


def with_certificate(left_s: float, failure: str = "forbidden") -> Facts:
    kept = {"ends_s": NOW_S + left_s, "failure": failure}
    return replace(GOOD, recorder=Asked({"rows": {"decisions": 7}, "predictor_certificate": kept}))


def problems(facts: Facts) -> str:
    found = [f for f in diagnose(facts, CHECKS) if f.level is Level.PROBLEM]
    assert all(finding.advice for finding in found)
    return "\n".join(f"{finding.sentence} -> {finding.advice}" for finding in found)


def with_extender(**status: Any) -> Facts:
    return replace(GOOD, extender=Asked({**GOOD.extender.answer, **status}))


def with_settings(**values: Any) -> Facts:
    return replace(GOOD, settings=SETTINGS.model_copy(update=values))


def standing_by(**more: Any) -> Facts:
    """The extender beside a replica that does not lead: nobody asks it while pods are bound."""
    quiet = {"calls": 0, "last_call_s": None, "planned": 0, "last_plan_s": None, "host": "fairlane-a"}
    return replace(with_extender(**quiet), **more)


BY_HINT = SETTINGS.model_copy(
    update={"controller": SETTINGS.controller.model_copy(update={"placement": "hint"})}
)


@pytest.mark.parametrize(
    "facts",
    [
        standing_by(scheduler_leader="fairlane-b"),
        standing_by(settings=BY_HINT, controller=Asked({"leader": "fairlane-b-7-0a1b2c"})),
    ],
    ids=["asked by kube-scheduler", "asked by the controller"],
)
def test_beside_a_replica_that_stands_by_nobody_asks_and_that_is_no_fault(facts: Facts) -> None:
    assert "without" not in problems(facts)
    (told,) = (f for f in diagnose(facts, CHECKS) if "stands by" in f.sentence)
    assert "in fairlane-b, which leads" in told.sentence
    assert "kubectl exec -n fairlane-system fairlane-b -c extender -- fairlane doctor" in told.advice


def test_beside_the_one_that_leads_it_is() -> None:
    assert "without asking" in problems(standing_by(scheduler_leader="fairlane-a"))
    led = standing_by(settings=BY_HINT, controller=Asked({"leader": "fairlane-a-7-0a1b2c"}))
    assert "without a plan" in problems(led)


def test_a_pod_that_one_node_alone_could_have_is_no_fault() -> None:
    seen = {"choices_unasked": 3, "last_choice_unasked_s": NOW_S - 3600}
    facts = with_extender(last_call_s=NOW_S - 300, **seen)
    assert problems(facts) == ""
    assert "3 s ago without asking" in problems(
        with_extender(last_call_s=None, **seen | {"last_choice_unasked_s": NOW_S - 3})
    )


def test_a_replica_that_does_not_lead_does_not_say_how_much_was_released() -> None:
    told = {"leader": "c-2", "leads": False, "releases": 0}
    facts = replace(with_settings(controller_url="http://c:8891"), controller=Asked(told))
    sentences = [finding.sentence for finding in diagnose(facts, CHECKS)]
    assert "c-2 leads the queue." in sentences


def test_all_is_well() -> None:
    assert problems(GOOD) == ""
    sentences = [finding.sentence for finding in diagnose(GOOD, CHECKS)]
    assert "The API server answers and tells 3 nodes." in sentences
    assert "cpu_use is known for 3 of 3 nodes, 2 s old." in sentences
    assert "rtt is known for 3 of 6 pairs, 0 s old." in sentences
    assert "kube-scheduler asked the extender 7 times, last 5 s ago." in sentences
    assert "Model m1 answers; trained 10 minutes ago on 400 examples." in sentences


@pytest.mark.parametrize(
    ("facts", "cause", "advice"),
    [
        (
            replace(GOOD, kube_failure="refused", nodes=()),
            "API server does not tell of nodes and pods: refused",
            "KUBECONFIG",
        ),
        (
            replace(GOOD, poll=PollerStats(1, 1, failure="Prometheus at x: no answer within 5 s.")),
            "no answer within 5 s",
            "prometheus.timeout_s",
        ),
        (
            replace(GOOD, poll=PollerStats(1, 1, failure="Prometheus at x: cannot be reached: refused.")),
            "cannot be reached",
            "prometheus.url",
        ),
        (
            with_settings(prometheus=SETTINGS.prometheus.model_copy(update={"url": ""})),
            "No Prometheus",
            "bundledPrometheus.enabled=true for a small one of our own), or ask `fairlane doctor",
        ),
        (
            replace(GOOD, poll=PollerStats(1, 1, failure="Prometheus at x: certificate verify failed.")),
            "certificate verify failed",
            "prometheus.ca_file",
        ),
        (with_settings(extender_url=""), "where the extender is", "--extender-url"),
        (
            replace(GOOD, extender=Asked(failure="refused")),
            "extender:8888 cannot be asked",
            "fairlane extender",
        ),
        (with_extender(unready="no nodes listed"), "not ready: no nodes listed", "findings"),
        (with_extender(last_call_s=None), "without asking the extender, which it never asked", "urlPrefix"),
        (
            with_settings(controller=SETTINGS.controller.model_copy(update={"placement": "hint"})),
            "without a plan: the controller never asked for one",
            "must be reachable from the controller",
        ),
        (with_extender(last_call_s=NOW_S - 300), "which it last asked 5 minutes ago", "nodeCacheCapable"),
        (with_extender(telemetry_failure="Prometheus at x: down."), "no new telemetry", "prometheus.url"),
        (with_extender(epoch_age_s=200.0), "is 200 s old", "epoch_s"),
        (
            with_extender(tables_failure="the process that makes score tables was lost"),
            "Answers may be late: the process that makes score tables was lost.",
            "out of memory",
        ),
        (
            with_extender(predictor_failure="UNAVAILABLE"),
            "ranks by the prior: UNAVAILABLE",
            "predictor_address",
        ),
        (with_extender(recorder_failure="401"), "cannot deliver its decisions", "FAIRLANE_TOKEN"),
        (with_extender(decisions={"dropped": 3, "refused": 1}), "4 decisions were lost", "decision_buffer"),
        (replace(GOOD, model=None, predictor_failure="UNAVAILABLE"), "No model answers", "fairlane train"),
        (replace(GOOD, model=replace(GOOD.model, schema_version=-1)), "features of schema -1", "train again"),
        (replace(GOOD, predictor_serving=False), "not serving", "restart"),
        (
            replace(GOOD, model=replace(GOOD.model, problem="central.txt is truncated")),
            "A newer model cannot be served: central.txt is truncated.",
            "Train again",
        ),
        (
            replace(GOOD, recorder=Asked(failure="refused")),
            "recorder:8890 cannot be asked",
            "fairlane recorder",
        ),
        (replace(GOOD, recorder=Asked({"store_failure": "locked"})), "cannot be written: locked", "lock"),
        (with_certificate(30 * 86400.0), "certificate, which ends in 30 days: forbidden", "update"),
        (with_certificate(-1.0), "certificate, which is not there, or has ended: forbidden", "get"),
        (replace(GOOD, recorder=Asked({"outcomes_dropped": 2})), "2 outcomes of pods were given up", "full"),
    ],
)
def test_the_cause_is_named_with_what_to_do(facts: Facts, cause: str, advice: str) -> None:
    told = problems(facts)
    assert cause in told
    assert advice in told


def test_an_old_binding_says_nothing_about_kube_scheduler_now() -> None:
    assert problems(replace(with_extender(last_call_s=None), last_bound_s=NOW_S - 7200)) == ""


def broken(name: str, report: ReadingReport, known: bool = False) -> Facts:
    missing = {name: [1] if known else [0, 1, 2]}
    return replace(GOOD, snapshot=snapshot(missing), reports=reports(**{name: report}))


def test_a_missing_exporter_is_told_with_how_to_install_it() -> None:
    nothing = tuple(
        replace(report, series=0, known=0) for report in reports() if report.source == "node_exporter"
    )
    pairs = tuple(report for report in reports() if report.source != "node_exporter")
    facts = replace(GOOD, snapshot=snapshot({n: [0, 1, 2] for n in NODE_NAMES}), reports=nothing + pairs)
    told = "cpu_use, memory_available, network_receive, network_transmit are not known for any of the nodes."
    assert f"{told} -> Run node_exporter as a DaemonSet" in problems(facts)


def test_series_without_a_node_are_told_with_the_label_to_add() -> None:
    report = ReadingReport("node_exporter", "cpu_use", 3, 0, strangers=3, example='{instance="x:1"}')
    told = problems(broken("cpu_use", report))
    assert '3 of 3 series of node_exporter name no node of the cluster, e.g. {instance="x:1"}' in told
    assert "__meta_kubernetes_pod_node_name" in told


def test_nodes_without_a_reading_are_named() -> None:
    told = problems(
        broken("cpu_use", ReadingReport("node_exporter", "cpu_use", 3, 2, stale=1, interval_s=15), True)
    )
    assert "cpu_use is known for 2 of 3 nodes; not for n1." in told
    assert "1 series of node_exporter are older than 3 intervals of 15 s" in told


def test_an_exporter_missing_on_one_node_is_told() -> None:
    told = problems(broken("cpu_use", ReadingReport("node_exporter", "cpu_use", 2, 2, interval_s=15), True))
    assert "cpu_use is known for 2 of 3 nodes; not for n1. -> node_exporter tells it for the others" in told


def test_a_few_nodes_without_a_reading_are_told_but_no_failure() -> None:
    facts = broken("cpu_use", ReadingReport("node_exporter", "cpu_use", 2, 2, interval_s=15), True)
    tolerant = replace(facts, settings=facts.settings.model_copy(update={"missing_nodes_ratio": 0.34}))
    assert problems(tolerant) == ""
    assert any("not for n1" in one.sentence for one in diagnose(tolerant, CHECKS))


def test_a_part_of_an_exporter_that_is_off_is_told() -> None:
    told = problems(broken("cpu_use", ReadingReport("node_exporter", "cpu_use", 0, 0, interval_s=15)))
    assert "is read but does not tell it" in told


def test_a_rate_range_shorter_than_two_scrapes_is_told_with_the_one_to_set() -> None:
    report = ReadingReport("node_exporter", "cpu_use", 0, 0, interval_s=60.0)
    assert "set it to 240" in problems(broken("cpu_use", report))


def test_pairs_that_nobody_measures_are_a_problem() -> None:
    none = {n: ReadingReport("fairlane_probe", n) for n in ("rtt", "throughput")}
    told = problems(replace(GOOD, snapshot=snapshot(pairs=False), reports=reports(**none)))
    assert "rtt, throughput are not known for any of the pairs. -> Run `fairlane probe`" in told
    assert "What a link can carry is not known for any pair" in told


def test_a_cluster_of_one_node_has_no_pairs_to_miss() -> None:
    alone = TelemetrySnapshot(
        1,
        NOW_S,
        ("n0",),
        {name: np.full(1, 0.5) for name in NODE_NAMES},
        {name: np.full(1, 2.0) for name in NODE_NAMES},
        {
            n: PairReadings(1, *2 * [np.empty(0, dtype=np.intp)], *2 * [np.empty(0)])
            for n in ("rtt", "throughput")
        },
    )
    assert problems(replace(GOOD, nodes=NODES[:1], snapshot=alone)) == ""


def test_a_source_that_is_not_configured_is_told() -> None:
    only_nodes = tuple(report for report in reports() if report.source == "node_exporter")
    assert "No configured source offers rtt." in problems(replace(GOOD, reports=only_nodes))


def test_what_is_odd_but_harmless_is_a_note() -> None:
    odd = ReadingReport(
        "node_exporter", "cpu_use", 9, 3, strangers=2, duplicates=4, example="{}", interval_s=15
    )
    facts = replace(with_extender(refused={"404": 2}, last_refusal="404"), reports=reports(cpu_use=odd))
    notes = [f.sentence for f in diagnose(facts, CHECKS) if f.level is Level.NOTE]
    assert problems(facts) == ""
    assert any("4 series of node_exporter repeat" in note for note in notes)
    assert any("2 series of node_exporter name no node" in note for note in notes)
    assert any("refused 2 requests" in note for note in notes)


def test_before_the_first_training_nothing_is_broken() -> None:
    untrained = "predictor:8889: UNAVAILABLE: no model was published yet: run `fairlane train --registry`"
    facts = replace(with_extender(predictor_failure=untrained), model=None, predictor_failure=untrained)
    assert problems(facts) == ""
    notes = [one.sentence for one in diagnose(facts, CHECKS) if one.level is Level.NOTE]
    assert "No model was published yet; the analytic prior ranks the nodes." in notes


@pytest.mark.parametrize(("examples", "word"), [(150, "Nothing, until"), (5000, "whether training fails")])
def test_without_a_first_model_it_is_told_whether_training_is_to_be_looked_at(
    examples: int, word: str
) -> None:
    recorded = Asked({"rows": {"examples": examples}})
    facts = replace(GOOD, model=None, predictor_failure="no model was published yet", recorder=recorded)
    (told,) = (one for one in diagnose(facts, CHECKS) if one.sentence.startswith("No model was published"))
    assert (told.level, word in told.advice) == (Level.NOTE, True)


def test_who_only_keeps_the_queue_misses_neither_extender_nor_telemetry() -> None:
    values = {"prometheus": {"url": "http://prometheus:9090"}, "controller_url": "http://controller:8891"}
    facts = Facts(Settings.model_validate(values), NOW_S, nodes=NODES, controller=Asked({"leader": "a"}))
    assert problems(facts) == ""
    assert overview(facts, [])["telemetry"] is None
    told = [one.sentence for one in diagnose(facts, CHECKS) if one.part == "extender"]
    assert told == ["No extender is configured: the queue is kept, and nodes are chosen without us."]


def test_who_knows_of_no_part_is_told_how_to_ask_from_inside() -> None:
    assert "`kubectl fairlane doctor`" in problems(Facts(Settings(), NOW_S, nodes=NODES))


def test_json_is_plain_and_unknown_is_null() -> None:
    facts = broken("cpu_use", ReadingReport("node_exporter", "cpu_use"))
    plain = json.loads(json.dumps(as_plain(facts, diagnose(facts, CHECKS)), allow_nan=False))
    assert not plain["ok"]
    row = next(row for row in plain["readings"] if row["reading"] == "cpu_use")
    assert (row["known"], row["total"], row["age_s"]) == (0, 3, None)
    assert {finding["level"] for finding in plain["findings"]} <= {"ok", "note", "problem"}


def test_coverage_has_one_row_per_offered_reading() -> None:
    assert [row.reading for row in coverage(GOOD)] == [*NODE_NAMES, "rtt", "throughput"]


def test_names_are_whole_where_lines_are_short() -> None:
    sources = ("fairlane_probe", "ping_exporter")
    rows = [
        Coverage(one.name, one.unit, "nodes", 5000, 5000, 123.4, 15.0, sources, ())
        for one in (*NODE_READINGS, *PAIR_READINGS)
    ]
    console = Console(width=80, file=io.StringIO())
    with console.capture() as written:
        console.print(_readings_table(rows))
    assert "…" not in written.get()
    assert all(row.reading in written.get() for row in rows)
