"""Trials on Ray: which one is next, where it runs, and its jobs on warm ranks.

The command line may import `sweep`, cluster may import `placement`; the rest is internal.
"""
