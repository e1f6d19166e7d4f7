"""Fitting what `model.central`, `model.linear`, `model.mixture` and `model.intervals` predict with.

Only training imports it: it needs scikit-learn, pandas and LightGBM's package,
whose import takes longer than all else that a model server does at its start.
"""
