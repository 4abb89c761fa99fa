"""Options: frozen dataclasses that the command line, configuration files and Python share.

Libraries: none.
"""
