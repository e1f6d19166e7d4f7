"""Trees loaded without LightGBM's package predict what the package predicts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import lightgbm as lgb
import numpy as np
import pytest

from model.snapshot import Floats
from model.trees import Trees, TreesError


@pytest.fixture(scope="module")
def rows() -> Floats:
    rows = np.random.default_rng(5).normal(size=(400, 6))
    rows[::7, 2] = np.nan
    return rows


@pytest.fixture(scope="module")
def grown(rows: Floats) -> lgb.Booster:
    target = np.nan_to_num(rows[:, 2]) ** 2 + rows[:, 0] - (rows[:, 5] > 0)
    parameters = {"verbosity": -1, "num_threads": 1, "objective": "huber"}
    return lgb.train(parameters, lgb.Dataset(rows, target), num_boost_round=40)


def test_they_predict_to_the_last_bit_what_lightgbm_predicts(grown: lgb.Booster, rows: Floats) -> None:
    text = grown.model_to_string()
    loaded, itself = Trees(text), lgb.Booster(model_str=text)
    assert np.array_equal(loaded.predict(rows, num_threads=2), itself.predict(rows))
    parts = loaded.predict(rows[:50], pred_contrib=True)
    assert parts.shape == (50, 7)
    assert np.array_equal(parts, itself.predict(rows[:50], pred_contrib=True))


def test_columns_that_lie_apart_in_memory_are_read_as_they_are(grown: lgb.Booster, rows: Floats) -> None:
    loaded = Trees(grown.model_to_string())
    wide = np.repeat(rows, 2, axis=1)[:, ::2]
    assert not wide.flags.c_contiguous
    assert np.array_equal(loaded.predict(wide), loaded.predict(rows))


def test_several_threads_get_what_one_gets(grown: lgb.Booster, rows: Floats) -> None:
    loaded = Trees(grown.model_to_string())
    alone = loaded.predict(rows)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: loaded.predict(rows), range(40)))
    assert all(np.array_equal(answer, alone) for answer in answers)


@pytest.mark.parametrize("text", ["", "nonsense", "tree\nversion=v4\nnum_class=1\n"])
def test_text_that_is_no_model_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(TreesError, match=r"\w"):
        Trees(text)


def test_rows_of_another_width_are_refused(grown: lgb.Booster, rows: Floats) -> None:
    with pytest.raises(TreesError, match="number of features"):
        Trees(grown.model_to_string()).predict(rows[:, :5])
