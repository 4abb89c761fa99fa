"""From columns to windows, and from forecasts to files. Knows numpy, pandas, pyarrow; no torch."""
