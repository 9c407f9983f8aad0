"""Train/test overlap: which evaluation items share 13 words in a row with the training data.

`annotate.annotate_overlaps` adds the counts to scores and samples. `run` and `harness.rescore`
import `annotate`; `ngrams` is internal.
"""
