"""Score one checkpoint: load it once, take every configured measure, write what came out."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sacrebleu
import torch
import transformers

from evals.config import EvalConfig
from evals.generate import measure_long_generation, measure_short_generation
from evals.heldout import measure_heldout
from evals.items import check_examples, choice_items, choose, scoring_identity
from evals.measure import Measured
from evals.model import LoadedModel, load_model, quiet
from evals.multiple_choice import measure_multiple_choice
from evals.scores import ScoreCard
from trainers.examples import Example
from trainers.files import check_output_folder, write_json, write_text

OnProgress = Callable[[str, int, int], None]


def score_model(
    *,
    model_path: str | Path,
    examples: Sequence[Example],
    template: str,
    max_length: int,
    config: EvalConfig,
    out_dir: Path,
    num_threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> ScoreCard:
    """The scores of the model at `model_path` on the held-out `examples`.

    `template` and `max_length` (tokens) are those of its training. Writes
    `out_dir/samples.jsonl`, then `out_dir/scores.json`, whose existence means that the model is
    scored; files of an earlier run are replaced. Prints nothing: `on_progress` is told the
    measure, how many of its items are done and how many there are, once before its first batch
    and then after each. `num_threads` bounds torch's threads while this runs.

    Raises:
        InputError: the examples, the template or the checkpoint cannot be scored, or nothing can
            be written to `out_dir`.
        TrainingError: the model's log-probabilities are not finite.
    """
    start = time.monotonic()
    check_output_folder(out_dir, where="--output-dir")
    check_examples(examples, config)
    scores_path = out_dir / "scores.json"
    scores_path.unlink(missing_ok=True)
    with quiet(num_threads):
        loaded = load_model(model_path, template=template, max_length=max_length)
        measured = list(_measures(loaded, examples, config, on_progress or _say_nothing))
        signature = _signature(loaded, examples, config)
    for part in measured:
        signature |= part.signature
    lines = [
        json.dumps(sample, ensure_ascii=False, allow_nan=False)
        for part in measured
        for sample in part.samples
    ]
    write_text(out_dir / "samples.jsonl", "".join(line + "\n" for line in lines))
    card = ScoreCard(
        model_path=str(model_path),
        scores=[score for part in measured for score in part.scores],
        signature=signature,
        seconds=time.monotonic() - start,
    )
    write_json(scores_path, card.model_dump(mode="json"))
    return card


def _measures(
    loaded: LoadedModel, examples: Sequence[Example], config: EvalConfig, on_progress: OnProgress
) -> Iterator[Measured]:
    def begin(measure: str, total: int) -> Callable[[int, int], None]:
        on_progress(measure, 0, total)
        return partial(on_progress, measure)

    if config.heldout is not None:
        chosen = choose(examples, config.heldout.examples, config.seed)
        yield measure_heldout(
            loaded,
            chosen,
            batch_size=config.batch_size,
            seed=config.seed,
            on_progress=begin("heldout", len(chosen)),
        )
    if config.multiple_choice is not None:
        items = choice_items(examples, config.multiple_choice, config.seed)
        yield measure_multiple_choice(
            loaded,
            items,
            batch_size=config.batch_size,
            on_progress=begin("multiple_choice", len(items)),
        )
    if config.short_generation is not None:
        chosen = choose(examples, config.short_generation.examples, config.seed)
        yield measure_short_generation(
            loaded,
            chosen,
            config.short_generation,
            batch_size=config.batch_size,
            on_progress=begin("short_generation", len(chosen)),
        )
    if config.long_generation is not None:
        chosen = choose(examples, config.long_generation.examples, config.seed)
        yield measure_long_generation(
            loaded,
            chosen,
            config.long_generation,
            batch_size=config.batch_size,
            seed=config.seed,
            on_progress=begin("long_generation", len(chosen)),
        )


def _signature(
    loaded: LoadedModel, examples: Sequence[Example], config: EvalConfig
) -> dict[str, Any]:
    """What the scores depend on besides the model: equal signatures make them comparable."""
    return {
        **scoring_identity(
            examples, config, template=loaded.template.name, max_length=loaded.max_length
        ),
        "batch_size": config.batch_size,
        **_chat_template_sha256(loaded),
        "device": loaded.device.type,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "sacrebleu": sacrebleu.__version__,
    }


def _chat_template_sha256(loaded: LoadedModel) -> dict[str, str]:
    if loaded.template.name != "chat":
        return {}
    text = str(loaded.tokenizer.chat_template)
    return {"template_sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}


def _say_nothing(measure: str, done: int, total: int) -> None:
    """The listener when nobody listens."""
