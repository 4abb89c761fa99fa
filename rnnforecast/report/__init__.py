"""Pictures and reports: charts, forecast plots, the HTML page of a version.

Libraries: matplotlib, numpy, pandas, plotille.
"""
