"""Generate text on several ranks, each with its own engine."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from evals.engine.helper_ranks import HelperRanks, split_evenly
from evals.engine.loaded_model import (
    GenerationEngine,
    GenerationSettings,
    LoadedModel,
    OutputCallback,
)
from evals.engine.padded_batches import PaddedBatches

# A call of an engine: the places of its prompts, the prompts, and the settings.
_Call = tuple[list[int], list[list[int]], GenerationSettings]


class SharedGeneration:
    """Rank 0's engine: it generates a share of the outputs, and the helpers' engines the others.

    Padded batches are those of a single rank, so that the outputs are the same. Other engines form
    their batches while they run; each gets every n-th prompt.
    """

    def __init__(self, engine: GenerationEngine, helpers: HelperRanks) -> None:
        self._engine, self._helpers = engine, helpers
        self.name = engine.name

    def generate(
        self,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        on_output: OutputCallback,
    ) -> None:
        """Call `on_output` once for each prompt; see `GenerationEngine`."""
        for calls in self._rounds(loaded, prompts, settings):

            def run(call: _Call) -> None:
                _run(self._engine, loaded, call, on_output)

            for outputs in self._helpers.run("generate", calls, run):
                for place, output in outputs:
                    on_output(place, output)

    def close(self) -> None:
        """Release rank 0's engine; the helpers' engines end with their work."""
        self._engine.close()

    def _rounds(
        self, loaded: LoadedModel, prompts: Sequence[list[int]], settings: GenerationSettings
    ) -> Iterator[list[_Call]]:
        """Yield a call for each rank, in rounds: after each, the helpers' outputs are logged."""
        num = self._helpers.num_shares
        if isinstance(self._engine, PaddedBatches):
            batches = self._engine.batches(loaded, prompts, settings)
            rounds = [batches[start : start + num] for start in range(0, len(batches), num)]
        else:
            longest_first = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
            rounds = [split_evenly(longest_first, num)]
        for shares in rounds:
            shares += [[] for _ in range(num - len(shares))]
            yield [_call(share, prompts, settings, self._engine) for share in shares]


def generate_share(loaded: LoadedModel, call: _Call) -> list[tuple[int, list[int]]]:
    """Return place and output of each prompt of a helper's share."""
    outputs: list[tuple[int, list[int]]] = []
    _run(loaded.engine, loaded, call, lambda place, output: outputs.append((place, output)))
    return outputs


def _call(
    places: list[int],
    prompts: Sequence[list[int]],
    settings: GenerationSettings,
    engine: GenerationEngine,
) -> _Call:
    if isinstance(engine, PaddedBatches):
        # These prompts are one batch.
        settings = replace(settings, max_rows=max(1, len(places)))
    return places, [list(prompts[place]) for place in places], settings


def _run(
    engine: GenerationEngine, loaded: LoadedModel, call: _Call, on_output: OutputCallback
) -> None:
    places, prompts, settings = call

    def report(number: int, output: list[int]) -> None:
        on_output(places[number], output)

    if places:
        engine.generate(loaded, prompts, settings, report)
