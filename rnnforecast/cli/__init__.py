"""The command line: options in, one call of the public functions, the result out.

Only Typer, Rich and the standard library are imported at module level; everything else inside
commands.

Libraries: typer, rich, numpy, pyarrow.
"""
