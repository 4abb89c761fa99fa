"""Forecasts in batches: a folder of buckets is forecast by many workers and published at once.

Libraries: numpy, pyarrow.
"""
