"""Small modules that all packages of orchestrator use.

Contents: redaction and flattening of records, periodic background threads, file writes that check
for existing files, the digest of the code, and the scale w_p on which PLW is searched.

Every package of orchestrator may import from here. This package imports `trainers.foundation` only.
"""
