"""Model and tokenizer loading, LoRA, packed attention, and the prompt format stored with a model.

`loading.load_model(config)` and `loading.load_tokenizer(config)` are the entry points. The data
package and the training loop import from here; evals and orchestrator may import `loading` and
`prompt_format`.
"""
