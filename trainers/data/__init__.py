"""Convert a data file to token ids and roles: read, split, apply templates, tokenise, batch.

`tokenize.read_split(config)` returns training and held-out examples; `tokenize.encode_examples`
returns their tokens and roles. evals and orchestrator may import `examples`, `roles`, `tokenize`,
`length_stats`, `readers` and `template_spans`.
"""
