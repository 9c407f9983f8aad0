"""Sweep specs: settings, their rules, and presets. A spec is checked before anything starts.

Every later package of orchestrator may import from here.
"""
