"""LightGBM's trees for prediction only, by the C interface of its library.

`import lightgbm` brings scikit-learn, pandas and scipy along wherever they are
installed, which is most of what the start of a model server would take. A
published model is text; to predict with it takes four functions.
"""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model.snapshot import Floats

# of LightGBM's c_api.h
FLOAT64, ROW_MAJOR = 1, 1
NORMAL, CONTRIBUTIONS = 0, 3
FROM_THE_FIRST, ALL_OF_THEM = 0, -1


class TreesError(ValueError):
    """LightGBM refused; the message is its own."""


class Booster(Protocol):
    """What is needed of trees, just fitted (`lightgbm.Booster`) or loaded (`Trees`)."""

    def predict(self, data: Any, /, *, pred_contrib: bool = False, num_threads: int = 1) -> Any:
        """Shape (rows,), or (rows, inputs + 1) with the contributions and the base."""

    def model_to_string(self) -> str:
        """As text."""


class Trees:
    """Trees loaded from text. Predicts in several threads at once."""

    def __init__(self, text: str) -> None:
        """Raises TreesError for text that LightGBM can't read."""
        self._text, self._handle = text, ctypes.c_void_p()
        rounds, library = ctypes.c_int(), _library()
        _check(
            library.LGBM_BoosterLoadModelFromString(
                text.encode(), ctypes.byref(rounds), ctypes.byref(self._handle)
            )
        )
        weakref.finalize(self, library.LGBM_BoosterFree, self._handle)

    def predict(self, data: Floats, /, *, pred_contrib: bool = False, num_threads: int = 1) -> Floats:
        """Shape (rows,), or (rows, inputs + 1) with the contributions and the base."""
        rows, columns = data.shape
        kind = CONTRIBUTIONS if pred_contrib else NORMAL
        told = self._predicted(np.ascontiguousarray(data, dtype=np.float64), kind, num_threads)
        return told.reshape(rows, columns + 1) if pred_contrib else told

    def model_to_string(self) -> str:
        """The text that they were loaded from."""
        return self._text

    def _predicted(self, data: Floats, kind: int, threads: int) -> Floats:
        library, (rows, columns) = _library(), data.shape
        told, written = np.empty(self._size(rows, kind)), ctypes.c_int64()
        _check(
            library.LGBM_BoosterPredictForMat(
                self._handle,
                data.ctypes.data_as(ctypes.c_void_p),
                FLOAT64,
                ctypes.c_int32(rows),
                ctypes.c_int32(columns),
                ROW_MAJOR,
                kind,
                FROM_THE_FIRST,
                ALL_OF_THEM,
                f"num_threads={threads} verbosity=-1".encode(),
                ctypes.byref(written),
                told.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
            )
        )
        return told

    def _size(self, rows: int, kind: int) -> int:
        size = ctypes.c_int64()
        _check(
            _library().LGBM_BoosterCalcNumPredict(
                self._handle, rows, kind, FROM_THE_FIRST, ALL_OF_THEM, ctypes.byref(size)
            )
        )
        return size.value


@cache
def _library() -> ctypes.CDLL:
    """LightGBM's own library, found without running its package."""
    package = importlib.util.find_spec("lightgbm")
    folders = (package.submodule_search_locations or []) if package is not None else []
    found = [file for folder in folders for file in sorted(Path(folder).glob("**/lib_lightgbm.*"))]
    if not found:
        raise ImportError("LightGBM's library is not installed")
    library = ctypes.CDLL(str(found[0]))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    # it would write what went wrong to standard error in a form of its own; it is in the error too
    library.silence = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_say_nothing)  # type: ignore[attr-defined]
    library.LGBM_RegisterLogCallback(library.silence)
    return library


def _say_nothing(_text: bytes) -> None:
    pass


def _check(code: int) -> None:
    if code != 0:
        raise TreesError(_library().LGBM_GetLastError().decode(errors="replace"))
