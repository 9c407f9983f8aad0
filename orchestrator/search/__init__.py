"""Search methods: which points of the space are tried next, and which trials are stopped.

plan and trials may import from here.
"""
