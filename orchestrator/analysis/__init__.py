"""From the record of a sweep to what it found.

report, tracking, export of a model and the command line may import from here.
"""
