"""Inference: model loading, batching, log-likelihoods of given tokens, greedy generation.

`loading.load_model(...)` returns the `LoadedModel` that `loglikelihood.score_continuations` and
`generation.generate` take. Every later package of evals may import from here; it imports nothing
else of evals.
"""
