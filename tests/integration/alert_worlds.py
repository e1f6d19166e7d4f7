"""Worlds for the alerts: three hours of series of our processes, of today and yesterday, for Prometheus."""

from __future__ import annotations

import re
import struct
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

STEP_S = 30
LENGTH_S = 3 * 3600
DAY_S = 86400.0

Course = Callable[[float], float]
"""Value of a series `s` seconds after the beginning of the world."""
World = Mapping[str, Course]
"""Series, as in the text format, and their courses."""


def at(value: float) -> Course:
    return lambda _s: value


def per_minute(rate: float) -> Course:
    return lambda s: rate * s / 60


def now_plus(seconds: float) -> Course:
    end_s = time.time() + seconds
    return lambda _s: end_s


def healthy() -> World:
    """Jobs come and go; something small happens now and then that is nobody's fault."""
    return {
        "fairlane_controller_leads": at(1),
        "fairlane_controller_terms_failed_total": at(1),
        "fairlane_queue_invariant_failures_total": at(0),
        'fairlane_queue_gangs{state="waiting"}': at(12),
        'fairlane_queue_gangs{state="running"}': at(4),
        "fairlane_queue_paused": at(0),
        "fairlane_queue_releases_total": per_minute(2),
        "fairlane_queue_lateness_count": per_minute(2),
        'fairlane_queue_bound_violations_total{cause="other"}': at(0),
        'fairlane_queue_bound_violations_total{cause="overrun"}': per_minute(1),
        'fairlane_queue_patch_failures_total{reason="Forbidden"}': at(0),
        'fairlane_queue_patch_failures_total{reason="gone"}': per_minute(0.5),
        "fairlane_queue_checkpoint_failures_total": at(2),
        "fairlane_recorder_store_writable": at(1),
        "fairlane_recorder_examples": at(4000),
        "fairlane_recorder_pods_unseen": lambda s: s % 90 // STEP_S,
        "fairlane_recorder_bindings_total": per_minute(2),
        "fairlane_extender_choices_unasked_total": at(2),
        "fairlane_extender_epoch": per_minute(4),
        "fairlane_extender_epoch_age_seconds": lambda s: s % 20,
        "fairlane_extender_epoch_age_max_seconds": at(120),
        'fairlane_extender_calls_total{reason="none"}': per_minute(2),
        'fairlane_extender_plans_total{reason="none"}': at(0),
        'fairlane_extender_decisions_lost_total{cause="buffer_full"}': at(0),
        "fairlane_extender_predictor_failures_total": per_minute(0.5),
        'fairlane_extender_score_tables_made_total{by="model"}': per_minute(4),
        'fairlane_prediction_error_sum{model="m7"}': per_minute(0.6),
        'fairlane_prediction_error_count{model="m7"}': per_minute(2),
        "fairlane_predictor_model_trained_at_seconds": now_plus(-2 * DAY_S),
        "fairlane_predictor_model_stale_after_seconds": at(14 * DAY_S),
        "fairlane_predictor_serving": at(1),
        "fairlane_predictor_registry_ok": at(1),
        "fairlane_predictor_certificate_ok": at(1),
        "fairlane_predictor_certificate_begins_seconds": now_plus(-50 * DAY_S),
        "fairlane_predictor_served_certificate_begins_seconds": now_plus(-50 * DAY_S),
        "fairlane_predictor_served_certificate_ends_seconds": now_plus(40 * DAY_S),
        "fairlane_predictor_certificate_ends_seconds": now_plus(40 * DAY_S),
        "fairlane_admission_certificate_ok": at(1),
        "fairlane_admission_certificate_begins_seconds": now_plus(-50 * DAY_S),
        "fairlane_admission_certificate_ends_seconds": now_plus(40 * DAY_S),
        'fairlane_admission_failures_total{status="503"}': at(3),
        'fairlane_admission_failures_total{status="404"}': per_minute(0.2),
    }


def young() -> World:
    """A new installation: nothing was trained yet, and the prior ranks."""
    trained = ("fairlane_predictor_model_trained", "fairlane_prediction_error")
    return {
        **{name: course for name, course in healthy().items() if not name.startswith(trained)},
        "fairlane_predictor_serving": at(0),
        "fairlane_recorder_examples": at(150),
        "fairlane_extender_predictor_failures_total": per_minute(4),
        'fairlane_extender_score_tables_made_total{by="model"}': at(0),
    }


def planned() -> World:
    """Placement is written at release: the controller asks for plans, and kube-scheduler asks nobody."""
    return {
        **healthy(),
        'fairlane_extender_calls_total{reason="none"}': at(0),
        'fairlane_extender_plans_total{reason="none"}': per_minute(2),
    }


def unasked() -> World:
    """Nobody has to ask the extender: others' schedulers bind all, or always one node alone has room."""
    return {
        **healthy(),
        'fairlane_extender_calls_total{reason="none"}': at(70),
    }


def broken() -> World:
    """All parts answer, and say that all is wrong."""
    return {
        **healthy(),
        "fairlane_controller_leads": at(0),
        "fairlane_controller_terms_failed_total": per_minute(1),
        "fairlane_queue_invariant_failures_total": per_minute(0.2),
        'fairlane_queue_gangs{state="running"}': at(0),
        "fairlane_queue_releases_total": at(50),
        'fairlane_queue_bound_violations_total{cause="other"}': per_minute(0.2),
        'fairlane_queue_patch_failures_total{reason="Forbidden"}': per_minute(1),
        "fairlane_queue_checkpoint_failures_total": per_minute(1),
        "fairlane_recorder_store_writable": at(0),
        "fairlane_recorder_pods_unseen": at(3),
        "fairlane_recorder_bindings_total": at(50),
        'fairlane_extender_calls_total{reason="none"}': at(70),
        "fairlane_extender_choices_unasked_total": per_minute(2),
        'fairlane_extender_decisions_lost_total{cause="buffer_full"}': per_minute(3),
        "fairlane_extender_epoch_age_seconds": lambda s: s,
        "fairlane_extender_predictor_failures_total": per_minute(4),
        'fairlane_extender_score_tables_made_total{by="model"}': at(9),
        'fairlane_prediction_error_sum{model="m7"}': per_minute(3),
        "fairlane_predictor_model_trained_at_seconds": now_plus(-20 * DAY_S),
        "fairlane_predictor_registry_ok": at(0),
        "fairlane_predictor_serving": at(0),
        "fairlane_predictor_certificate_ok": at(0),
        "fairlane_admission_certificate_ok": at(0),
        'fairlane_admission_failures_total{status="503"}': per_minute(1),
    }


def idle() -> World:
    """Nobody submits anything, and the queue is paused with gangs in it: no fault of anybody."""
    stopped: dict[str, Course] = {
        name: at(course(0)) for name, course in healthy().items() if name.endswith(("_total", "}", "_count"))
    }
    return {
        **healthy(),
        **stopped,
        'fairlane_queue_gangs{state="running"}': at(0),
        "fairlane_queue_paused": at(1),
    }


@dataclass(frozen=True)
class Sample:
    """One value of one series."""

    series: str
    value: float
    at_ms: int


def samples(world: World, end_s: float) -> Iterable[list[Sample]]:
    """The world's samples, in portions in the order of time."""
    for second in range(0, LENGTH_S + 1, STEP_S):
        at_ms = int(1000 * (end_s - LENGTH_S + second))
        yield [Sample(name, course(float(second)), at_ms) for name, course in world.items()]


def push(url: str, world: World, end_s: float) -> None:
    """Send it by Prometheus' remote write protocol, version 1."""
    body = b"".join(_series(one) for portion in samples(world, end_s) for one in portion)
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    headers["X-Prometheus-Remote-Write-Version"] = "0.1.0"
    request = urllib.request.Request(f"{url}/api/v1/write", _snappy(body), headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 204)


def _series(sample: Sample) -> bytes:
    """A TimeSeries with one Sample, as field 1 of a WriteRequest."""
    name, _, rest = sample.series.partition("{")
    labels = {"__name__": name, **dict(re.findall(r'(\w+)="([^"]*)"', rest))}
    body = b"".join(_message(1, _label(key, labels[key])) for key in sorted(labels))
    value = b"\x09" + struct.pack("<d", sample.value) + b"\x10" + _varint(sample.at_ms)
    return _message(1, body + _message(2, value))


def _label(name: str, value: str) -> bytes:
    return _message(1, name.encode()) + _message(2, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _snappy(content: bytes) -> bytes:
    """Snappy's block format, of literals only: what is not compressed is allowed."""
    parts = [_varint(len(content))]
    for begin in range(0, len(content), 65536):
        piece = content[begin : begin + 65536]
        parts += [bytes([61 << 2]) + struct.pack("<H", len(piece) - 1), piece]
    return b"".join(parts)
