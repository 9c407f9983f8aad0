"""From a spec to trials with their ids, sources and costs. Starts nothing.

trials and the command line may import from here.
"""
