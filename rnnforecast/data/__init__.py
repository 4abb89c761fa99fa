"""Readings as arrays: from a source to a panel to windows, and forecasts back to files.

Libraries: numpy, pandas, pyarrow, holidays.
"""
