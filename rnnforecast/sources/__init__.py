"""Files and tables as batches of Arrow columns, with locations for errors.

Libraries: numpy, pandas, pyarrow, duckdb.
"""
