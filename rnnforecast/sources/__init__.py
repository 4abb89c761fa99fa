"""A file or a table as batches of columns, whatever its format. Knows pyarrow and pandas alone."""
