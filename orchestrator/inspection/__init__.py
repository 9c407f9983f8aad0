"""Inspect training data before a sweep.

`dataset_stats` counts tokens, `advise` predicts the best PLW, and `write_suggested_spec` writes a
spec around it. `select_examples` returns examples token by token. `check_masks` compares labels
with those of other tools. `invert_data` swaps prompts and completions. Only serve and the command
line may import from here.
"""
