"""Tables as series: the role of each column, rows on a regular grid, cleaning and findings.

Libraries: numpy, pandas, pyarrow, holidays.
"""
