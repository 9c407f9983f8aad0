"""Model and tokenizer loading, LoRA, packed attention, and the prompt format stored with a model.

The main entry points are `loading.load_model(config, dtype)` and `loading.load_tokenizer(config)`.
evals and orchestrator may import `loading` and `prompt_format`.
"""
