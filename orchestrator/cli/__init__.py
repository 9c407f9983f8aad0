"""The command line `plw`: one module per command, and modules that print output.

`main.main` is the entry point. No other package may import from here.
"""
