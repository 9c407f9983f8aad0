"""What scores depend on besides model and machine: equal identities make scores comparable.

Nothing here needs a model: a sweep knows before it trains which scores it can reuse.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals.config import EvalConfig
from evals.harness.paper_suite import data_files
from evals.heldout.examples import digest
from trainers.data.examples import Example
from trainers.foundation.files import sha256_of

# Raised whenever the same model and items may score otherwise than before.
SCORING_VERSION = 1


def scoring_identity(
    examples: Sequence[Example], config: EvalConfig, *, template: str, max_length: int
) -> dict[str, Any]:
    """What scores depend on besides model and machine, known before a model is loaded.

    A model's own chat template counts as part of the model.
    """
    is_file = Path(template).is_file()
    return {
        "version": SCORING_VERSION,
        "measures": config.described(),
        "seed": config.seed,
        "template": template,
        "template_sha256": sha256_of(Path(template)) if is_file else None,
        "max_length": max_length,
        "items_sha256": digest(examples),
        "num_examples": len(examples),
        **_files_identity(config),
    }


def _files_identity(config: EvalConfig) -> dict[str, Any]:
    files = data_files(config)
    return {"benchmark_files": [sha256_of(file) for file in files]} if files else {}
