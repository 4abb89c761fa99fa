"""Is it any good? Baselines and metrics. Knows numpy and the Forecaster protocol; no torch."""
