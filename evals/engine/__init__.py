"""Inference: model loading, batching, log-likelihoods of given tokens, and text generation.

`loading.load_model(...)` returns a `LoadedModel`, the input of `loglikelihood.score_continuations`
and `generation.generate`. Every later package of evals may import this package, which imports
nothing else from evals.
"""
