"""Readings as arrays: panels, windows, seasons, splits, and forecasts as files.

Libraries: numpy, pandas, pyarrow.
"""
