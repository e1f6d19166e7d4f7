"""What the predictor tells of the certificate that it serves, whoever renews that."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.edge.certificates import Lives, renewed
from scheduler.edge.predictor_metrics import PredictorMetrics

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
BEGINS, ENDS = (f"fairlane_predictor_served_certificate_{word}_seconds" for word in ("begins", "ends"))


def status() -> dict[str, Any]:
    return {"unready": "", "problem": "", "predictions": 0, "predicting_s": 0.0, "model_version": ""}


def told(certificate: Path | None) -> dict[str, float]:
    families = PredictorMetrics(status, 86400.0, certificate).collect()
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_the_life_of_the_certificate_is_told_as_it_is_at_that_moment(tmp_path: Path) -> None:
    file = tmp_path / "tls.crt"
    for life_s in (900.0, 9000.0):
        file.write_bytes(renewed(None, ("a",), START, Lives(9000.0, life_s, 60.0)).serving.certificate)
        assert told(file)[ENDS] == START.timestamp() + life_s
        assert told(file)[BEGINS] == START.timestamp() - 300


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_one_that_cannot_be_read_has_ended(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "tls.crt"
    if content is not None:
        file.write_bytes(content)
    assert told(file)[ENDS] == 0


def test_without_encryption_there_is_none_that_could_end() -> None:
    assert {BEGINS, ENDS}.isdisjoint(told(None))
