"""Tests of the documentation: what it says runs, resolves, and is true."""
