"""Data before training: shown, inverted, and what is known of its best PLW.

Only the command line may import from here.
"""
