"""Sweeps over the prompt loss weight: plan, run, track, analyse, report."""
