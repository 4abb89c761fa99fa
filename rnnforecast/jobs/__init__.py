"""Unattended runs: one cycle of a job, what it publishes, its ledger, log and status.

Libraries: numpy, pyarrow.
"""
