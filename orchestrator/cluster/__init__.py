"""Sweeps submitted from a laptop to a cluster. Only the command line may import from here."""
