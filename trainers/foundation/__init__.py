"""Errors, files, JSON Lines, YAML settings, renamed settings, object store and cache folder.

Every package of trainers, evals and orchestrator may import this package. It imports no other
package of this project, and neither torch nor transformers.
"""
