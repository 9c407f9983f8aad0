"""Commands on one thing that is already there: a model or a data set."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evals.config import EvalConfig
from evals.harness.preflight import check_data
from evals.results.scores import ScoreCard
from orchestrator.spec.sweep_spec import SweepSpec, load_spec
from trainers.config import DataConfig, ModelConfig
from trainers.data.examples import Example
from trainers.data.length_stats import DataStats, data_stats
from trainers.data.readers import read_examples
from trainers.data.tokenize import Split, encode_all, read_split
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_of
from trainers.foundation.settings_file import build_config, read_yaml
from trainers.models.loading import load_tokenizer, resolve_model_path
from trainers.models.prompt_format import TrainedAs, read_trained_as

# Measures on held-out examples, which a run without examples leaves out.
_NO_EXAMPLES = dict.fromkeys(("heldout", "multiple_choice", "short_generation", "long_generation"))


def stats_of(config: DataConfig, *, model: str) -> DataStats:
    """Counts and tokens by role of all examples of a data set under a model's tokenizer.

    Raises:
        InputError: data, model or template do not fit.
    """
    tokenizer = load_tokenizer(ModelConfig(path=model))
    examples = read_examples(config.path, split=config.split)
    return data_stats(encode_all(examples, config, tokenizer), config)


def evaluate_model(
    model: str,
    data_path: str | None,
    *,
    spec_path: Path | None,
    tasks: Sequence[str],
    settings: Mapping[str, Any],
    template: str | None,
    max_length: int | None,
    output_dir: Path,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_kept: Callable[[Sequence[str]], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> ScoreCard:
    """Score a model on benchmarks, on examples, or on the held-out part of a spec's data.

    A spec also gives the measures, the template and the length, as far as they are not given; a
    file with `evals` and nothing else gives the measures. `settings` replace those of its evals.
    A spec's training data is what items may overlap and memorisation is measured on, unless
    `data_path` is given. A model that says how it was trained is shown prompts the same way,
    unless `template` says otherwise; `on_note` is told where the two differ.
    `on_kept` is told the measures that an earlier run has left in `output_dir`.

    Raises:
        InputError: neither tasks nor examples nor a spec were given, or model, data or template
            do not fit.
    """
    from evals.run import score_model

    if not (tasks or data_path or spec_path):
        fix = "give --tasks or --data, or a sweep spec as --config"
        raise InputError(Problem(message="nothing to score on", fix=fix))
    given = {name: value for name, value in settings.items() if value is not None}
    spec, evals = _spec_and_evals(spec_path, given)
    if not (data_path or spec):
        evals = _NO_EXAMPLES | evals
    if "pandalm" in given:  # Its opponent alone.
        given["pandalm"] = (evals.get("pandalm") or {}) | given["pandalm"]
    evals |= given
    if tasks:
        shots = evals.pop("num_fewshot", None)
        evals["tasks"] = [{"name": name, "num_fewshot": shots} for name in tasks]
    config = build_config(EvalConfig, evals, source=spec_path or Path("plw eval"))
    # Before a model is fetched from the hub.
    check_data(config)
    data = spec.data if spec is not None else DataConfig(path=data_path or "-")
    path = resolve_model_path(model)
    chosen = _template(path, data, template, config, is_given=spec is not None, say=on_note)
    # A spec whose data is elsewhere can still be asked for its measures, with other data.
    split = read_split(data) if spec is not None and not data_path else None
    return score_model(
        model_path=path,
        examples=_examples(data_path, split, config),
        training=split.train if split is not None else None,
        template=chosen,
        max_length=max_length or _max_length(path, data, is_given=spec is not None),
        config=config,
        out_dir=output_dir,
        untuned_path=resolve_model_path(spec.model.path) if spec is not None else None,
        num_threads=os.cpu_count(),
        on_progress=on_progress,
        on_kept=on_kept,
    )


class _EvalsFile(BaseModel):
    """Measures alone, for models that no spec of ours has trained."""

    model_config = ConfigDict(extra="forbid")

    evals: EvalConfig


def _spec_and_evals(
    path: Path | None, given: Mapping[str, Any]
) -> tuple[SweepSpec | None, dict[str, Any]]:
    """The sweep spec of a file, if it is one, and the measures that it asks for.

    What is `given` elsewhere, such as the judge, a file of measures alone may lack.
    """
    if path is None:
        return None, {}
    content = read_yaml(path)
    if set(content) != {"evals"}:
        spec = load_spec(path)
        return spec, spec.evals.model_dump(mode="json")
    if isinstance(content["evals"], dict) and "judge" in given:
        content["evals"]["judge"] = given["judge"]
    evals = build_config(_EvalsFile, content, source=path).evals.with_absolute_paths()
    return None, evals.model_dump(mode="json", exclude_unset=True)


def _examples(data_path: str | None, split: Split | None, config: EvalConfig) -> list[Example]:
    if not config.takes_examples:
        return []
    if data_path:
        return read_examples(data_path)
    if split is None:
        raise InputError(
            Problem(
                message="the measures on held-out examples have no examples",
                fix="give --data, or a whole sweep spec as --config",
            )
        )
    return split.heldout


def _template(
    path: str,
    data: DataConfig,
    given: str | None,
    config: EvalConfig,
    *,
    is_given: bool,
    say: Callable[[str], None] | None,
) -> str:
    """The template that a model is shown prompts in.

    Raises:
        InputError: benchmarks are to be in the checkpoint's, and nothing says which that is.
    """
    trained = read_trained_as(path)
    if trained is not None:
        _refuse_changed(trained, path, given)
    recorded = trained.template if trained is not None else None
    in_template = (config.tasks or config.benchmarks) and config.task_template == "checkpoint"
    if in_template and not (given or recorded or is_given):
        raise InputError(
            Problem(
                message=f"{path} does not say in which template it was trained",
                where="--task-template",
                fix="give --template, or --task-template none",
            )
        )
    if recorded is None:
        # A benchmark's bare prompts need no chat template, which not every tokenizer has.
        fallback = data.template if config.takes_examples or is_given else "plain"
        return given or fallback
    other = given or (data.template if is_given else recorded)
    if say is not None and other != recorded:
        say(f"the model was trained with template {recorded}; scored with {given or recorded}")
    return given or recorded


def _refuse_changed(trained: TrainedAs, path: str, given: str | None) -> None:
    if given is not None or trained.template_sha256 is None:
        return
    file = Path(trained.template)
    if not file.is_file() or sha256_of(file) != trained.template_sha256:
        fault = "has changed" if file.is_file() else "is not there any more"
        raise InputError(
            Problem(
                message=f"the template {file} that {path} was trained with {fault}",
                fix="bring it back, or give --template",
            )
        )


def _max_length(path: str, data: DataConfig, *, is_given: bool) -> int:
    trained = read_trained_as(path)
    return data.max_length if trained is None or is_given else trained.max_length
