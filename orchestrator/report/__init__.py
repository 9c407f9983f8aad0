"""The report: one HTML page, its plots and its tables.

tracking, trials and the command line may import from here.
"""
