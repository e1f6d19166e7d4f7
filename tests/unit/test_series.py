"""Windows, slopes and forecasts against slow, obvious versions of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.snapshot import WINDOWS, Floats, Reading
from scheduler.edge import series
from scheduler.edge.series import Block, forecast, last_known, possible, windows

READING = Reading("rtt", "s", 0.0, 1e6, windowed=True)
STEP_S = 15.0
VALUES = st.lists(st.one_of(st.floats(0, 1e3), st.just(math.nan)), min_size=2, max_size=21)


def block(*rows: list[float], step_s: float = STEP_S) -> Block:
    values = np.array(rows, dtype=np.float64)
    return Block(1e9 + step_s * np.arange(values.shape[1]), values)


def plain_forecast(values: list[float], step_s: float, horizon_s: float) -> float:
    """Holt's damped method for one series, one step at a time, as in a textbook."""
    alpha = 1 - math.exp(-step_s / series._LEVEL_MEMORY_S)
    beta = 1 - math.exp(-step_s / series._TREND_MEMORY_S)
    phi = math.exp(-step_s / series._DAMPING_S)
    level, trend = math.nan, 0.0
    for value in values:
        if math.isnan(level):
            level = value
        elif math.isnan(value):
            level, trend = level + phi * trend, phi * trend
        else:
            new = alpha * value + (1 - alpha) * (level + phi * trend)
            level, trend = new, beta * (new - level) + (1 - beta) * phi * trend
    return level + trend * sum(phi**j for j in range(1, round(horizon_s / step_s) + 1))


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_the_forecast_is_holts_damped_method(values: list[float]) -> None:
    expected = plain_forecast(values, STEP_S, 60.0)
    assert forecast(block(values))[0] == pytest.approx(expected, nan_ok=True)


@given(st.lists(VALUES, min_size=2, max_size=4))
@settings(max_examples=30, deadline=None)
def test_a_series_is_not_touched_by_its_neighbours(rows: list[list[float]]) -> None:
    length = min(map(len, rows))
    rows = [row[:length] for row in rows]
    together = windows(block(*rows), READING)
    for i, row in enumerate(rows):
        alone = windows(block(row), READING)
        assert all(together[name][i] == pytest.approx(alone[name][0], nan_ok=True) for name in WINDOWS)


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_slope_is_least_squares_over_what_is_known(values: list[float]) -> None:
    inside = values[-20:]  # five minutes hold twenty columns
    known = [(STEP_S * i, v) for i, v in enumerate(inside) if not math.isnan(v)]
    expected = np.polyfit(*zip(*known, strict=True), 1)[0] if len(known) >= 3 else math.nan
    slope = windows(block(values), READING)["slope_5m"][0]
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-7, nan_ok=True)


def test_the_one_minute_window_holds_one_minute() -> None:
    values = [100.0] * 17 + [1.0, 2.0, 3.0, 4.0]
    views = windows(block(values), READING)
    assert views["mean_1m"][0] == pytest.approx(2.5)
    assert views["slope_1m"][0] == pytest.approx(1 / STEP_S)
    assert views["mean_5m"][0] == pytest.approx(np.mean(values[1:]))


def test_the_best_is_of_the_newest_few() -> None:
    rates = Reading("throughput", "bytes/s", 1.0, 1e12, windowed=True, more_is_better=True)
    newest_last = block([900.0, 40.0, math.nan, 80.0, 50.0])
    assert windows(newest_last, rates)["best"][0] == 80.0
    assert windows(newest_last, READING)["best"][0] == 50.0


def test_nothing_known_is_nothing_said() -> None:
    views = windows(block([math.nan] * 21), READING)
    assert set(views) == set(WINDOWS)
    assert all(math.isnan(view[0]) for view in views.values())


def test_a_rising_series_is_forecast_to_rise_but_not_for_ever() -> None:
    rising = [float(i) for i in range(21)]
    ahead = forecast(block(rising))[0]
    assert 20 < ahead < 24
    assert forecast(block(rising), horizon_s=1e5)[0] < 60


def test_a_forecast_stays_within_the_possible() -> None:
    ratio = Reading("cpu_use", "ratio", 0.0, 1.0, windowed=True)
    rising = block([0.5 + 0.024 * i for i in range(21)])
    assert windows(rising, ratio)["forecast"][0] == 1.0


def test_no_series_at_all_is_no_error() -> None:
    empty = Block(np.arange(3.0), np.empty((0, 3)))
    assert all(view.shape == (0,) for view in windows(empty, READING).values())
    assert last_known(empty)[0].shape == (0,)


def test_the_last_known_value_has_its_time() -> None:
    value, at_s = last_known(block([1.0, 2.0, math.nan], [math.nan] * 3))
    assert value == pytest.approx([2.0, math.nan], nan_ok=True)
    assert at_s == pytest.approx([1e9 + STEP_S, math.nan], nan_ok=True)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1.0, 1.5, -0.06])
def test_the_impossible_is_unknown(value: float) -> None:
    ratio = Reading("loss", "ratio", 0.0, 1.0)
    assert np.isnan(possible(np.array([[value]]), ratio)).all()


def test_rounding_at_the_bounds_of_a_ratio_is_mended_but_not_of_other_units() -> None:
    ratio, bytes_s = Reading("loss", "ratio", 0.0, 1.0), Reading("disk_read", "bytes/s", 0.0, 1e12)
    values: Floats = np.array([[-0.01, 1.02]])
    assert possible(values, ratio).tolist() == [[0.0, 1.0]]
    assert np.isnan(possible(values, bytes_s)[0, 0])
