"""Benchmarks against alternatives, and simulations. Not part of the installed package."""
