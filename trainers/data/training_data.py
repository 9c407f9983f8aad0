"""What a run reads before it trains: tokenizer, training examples and held-out ones, as tokens.

Kept for the next run of the same process, which in a sweep mostly has the same model and data: on
warm workers reading them again took a quarter of what a short trial costs beyond its training.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trainers.config import DataConfig, ModelConfig
from trainers.data.roles import Encoded
from trainers.data.tokenize import encode_all, encode_heldout, read_split
from trainers.data.tokenized import EncodedExamples
from trainers.models.loading import load_tokenizer, resolve_model_path

log = logging.getLogger(__name__)

# Modification time in ns and size of a file.
FileVersion = tuple[int, int]


@dataclass(frozen=True)
class Inputs:
    """Nobody changes them: they may be those of the run before."""

    tokenizer: PreTrainedTokenizerBase
    examples: EncodedExamples
    heldout: list[Encoded]


def read_inputs(
    model: ModelConfig, data: DataConfig, *, with_heldout: bool, is_first: bool
) -> Inputs:
    """The inputs of a run, from disk where any of their files has changed.

    Args:
        with_heldout: whether the held-out examples are wanted as well.
        is_first: whether to log how many examples were too long.

    Raises:
        InputError: tokenizer or data cannot be read, or do not fit.
    """
    folder = Path(resolve_model_path(model.path))
    num_kept = _read.cache_info().hits
    files = [Path(data.path), Path(data.template), *sorted(folder.glob("*token*"))]
    inputs = _read(model, data, with_heldout, is_first, _versions(files))
    if is_first and _read.cache_info().hits > num_kept:
        log.info("%s", inputs.examples.counts.sentence(data.max_length))
    return inputs


@lru_cache(maxsize=1)
def _read(
    model: ModelConfig,
    data: DataConfig,
    with_heldout: bool,
    is_first: bool,
    versions: tuple[FileVersion, ...],
) -> Inputs:
    tokenizer = load_tokenizer(model)
    split = read_split(data)
    examples = encode_all(split.train, data, tokenizer, is_first=is_first)
    heldout = encode_heldout(split.heldout, data, tokenizer) if with_heldout else []
    return Inputs(tokenizer, examples, heldout)


def _versions(files: Sequence[Path]) -> tuple[FileVersion, ...]:
    stats = [file.stat() for file in files if file.is_file()]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
