"""From a file to windows, and from a forecast to a file. Knows numpy, pandas, pyarrow; no torch."""
