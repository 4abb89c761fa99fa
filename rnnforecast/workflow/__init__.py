"""The commands as functions: each wires rooms together, reports events and returns a result.

The public ones are exported by `rnnforecast`. Libraries: numpy, pandas, pyarrow.
"""
