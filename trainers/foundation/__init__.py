"""Errors, atomic file writes, YAML settings files, the object store and the cache folder.

Every package of trainers, evals and orchestrator may import from here. Nothing here imports
another package of this project, torch or transformers.
"""
