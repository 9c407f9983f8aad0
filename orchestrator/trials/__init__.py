"""Runs trials on Ray: which one next, on what, and their jobs on warm ranks."""
