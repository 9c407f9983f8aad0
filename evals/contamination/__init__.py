"""Train/test overlap: which evaluation items occur in the training data.

`annotate.annotate_overlaps` adds the counts to scores and samples. `run` and `harness.rescore`
import `annotate`; `ngrams` is internal.
"""
