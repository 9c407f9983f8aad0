"""The record of a sweep on disk: what each later stage reads, and nothing else."""
