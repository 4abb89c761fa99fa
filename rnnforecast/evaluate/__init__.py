"""Forecasts against what came: baselines, backtests, metrics, calibration, verdicts.

Libraries: numpy, pandas, pyarrow, sklearn.
"""
