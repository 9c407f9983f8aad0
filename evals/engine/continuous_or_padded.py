"""Continuous batches as long as they work, or else padded batches."""

import logging
from collections.abc import Sequence

from evals.engine.continuous_batches import ContinuousBatches
from evals.engine.loaded_model import (
    GenerationEngine,
    GenerationSettings,
    LoadedModel,
    OutputCallback,
)
from evals.engine.padded_batches import PaddedBatches
from trainers.foundation.errors import TrainingError

log = logging.getLogger(__name__)


class ContinuousOrPadded:
    """The engine `auto` on a GPU: a failure of continuous batching costs time instead of scores."""

    name = "auto"

    def __init__(self) -> None:
        self._engine: GenerationEngine = ContinuousBatches()

    def generate(
        self,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        on_output: OutputCallback,
    ) -> None:
        """Call `on_output` once for each prompt; see `GenerationEngine`.

        After a failure, this and later calls generate in padded batches.
        """
        missing = set(range(len(prompts)))

        def collect(place: int, output: list[int]) -> None:
            missing.remove(place)
            on_output(place, output)

        try:
            self._engine.generate(loaded, prompts, settings, collect)
        except Exception as error:  # transformers, torch and CUDA raise many types.
            has_diverged = isinstance(error, TrainingError) and error.kind == "divergence"
            if has_diverged or isinstance(self._engine, PaddedBatches):
                raise
            log.warning("%s; outputs are generated in padded batches", error)
        if missing:
            self._engine = PaddedBatches()
            places = sorted(missing)
            self._engine.generate(
                loaded,
                [prompts[place] for place in places],
                settings,
                lambda number, output: on_output(places[number], output),
            )

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()
