"""A sweep observed from another process: find it, watch it, read its logs, stop it.

trials, cluster, export of a model and the command line may import from here.
"""
