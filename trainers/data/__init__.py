"""From a data file to token ids and roles: reading, splitting, templates, tokenising, batching.

`tokenize.read_split(config)` returns training and held-out examples, `tokenize.encode_all` their
tokens and roles. The training loop imports everything it needs from here. evals and orchestrator
may import `examples`, `roles`, `tokenize`, `length_stats` and `readers`.
"""
