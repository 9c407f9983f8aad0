"""Sweeps on a cluster, from a laptop."""
