"""Model and tokenizer loading, LoRA, packed attention, and the prompt format stored with a model.

The main entry points are `loading.load_model(config, dtype)` and `loading.load_tokenizer(config)`.
evals and orchestrator may import `loading` and `prompt_format`.
"""

import logging

# At its import by peft, bitsandbytes advises to install a package for inference in 4 bits on CPUs.
# Every process that trains imports peft: ranks in Ray and under torchrun do not run `plw`'s main.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
