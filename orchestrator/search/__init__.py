"""Search methods, early stopping and budgets.

`make_search` in `methods` returns a `Search`: `ask()` returns the next point, `tell()` reports its
scores. `make_scheduler` in `stopping` stops points early; `Budget` in `budget` limits a sweep.

plan and trials may import from here.
"""
