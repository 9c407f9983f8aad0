"""Sweep specs: what they may say, checked before anything starts."""
