"""Sweeps over the prompt loss weight: plan, run, track, analyse, report."""

__version__ = "0.1.0"
