"""The record of a sweep on disk, which all later stages read.

Every package after spec may import from here.
"""
