"""Text generation with the engine of a loaded model, greedy by default."""

from collections.abc import Mapping, Sequence
from typing import Any

from evals.engine.batching import ProgressCallback
from evals.engine.loaded_model import GenerationSettings, LoadedModel, OutputCallback
from evals.engine.padded_batches import PaddedBatches


def generate(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int | None,
    on_progress: ProgressCallback,
    stop_strings: Sequence[str] = (),
    sampling: Mapping[str, Any] | None = None,
    on_output: OutputCallback | None = None,
) -> list[list[int]]:
    """Return the output tokens of each prompt, without the end token.

    An output also ends after one of `stop_strings`, which is then part of the output. `sampling`
    are settings of transformers' generation. With them, every engine generates in padded batches,
    so that torch's seed determines the outputs.

    Args:
        batch_size: maximum number of outputs at the same time; None: the engine chooses.

    Raises:
        TrainingError: the logits of a token are not finite, or the engine has failed.
    """
    outputs: dict[int, list[int]] = {}

    def collect(place: int, output: list[int]) -> None:
        outputs[place] = output
        if on_output is not None:
            on_output(place, output)
        on_progress(len(outputs), len(prompts))

    if prompts:
        settings = GenerationSettings(
            max_new_tokens=max_new_tokens,
            max_rows=batch_size,
            stop_strings=stop_strings,
            sampling=sampling or {},
        )
        engine = PaddedBatches() if sampling else loaded.engine
        engine.generate(loaded, prompts, settings, collect)
    return [outputs[place] for place in range(len(prompts))]
