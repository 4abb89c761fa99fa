"""Files and objects: durable writes, atomic publishing, model versions, locks.

Libraries: pyarrow, fsspec.
"""
