"""Score one model: combine the options of `plw eval` with a spec and the model's record."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evals.config import EvalConfig
from evals.harness.preflight import check_benchmarks
from evals.results.scores import ScoreCard
from orchestrator.spec.sweep_spec import SweepSpec, load_spec
from trainers.config import ModelConfig, TrainConfig
from trainers.data.examples import Example
from trainers.data.readers import read_examples
from trainers.data.template_source import utc_today, with_date
from trainers.data.tokenize import Split, read_split
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder, sha256_file
from trainers.foundation.settings_file import build_config, read_yaml
from trainers.models.loading import load_tokenizer, resolve_model_path
from trainers.models.prompt_format import PromptFormat, read_prompt_format

# Measures on held-out examples, turned off if there are no examples.
_WITHOUT_EXAMPLES = dict.fromkeys(
    ("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf")
)


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
    on_reused: Callable[[Sequence[str]], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> ScoreCard:
    """Score a model on benchmarks, on examples, or on the held-out part of a spec's data.

    Args:
        model: folder or hub name of a model, or the output folder of `plw train`.
        data_path: path or hub name of the examples. If None, the spec's data is used, and overlap
            and memorisation are measured on the spec's training data.
        spec_path: a sweep spec, which sets the measures and the default template and length, or a
            file with only `evals`, which sets the measures.
        settings: overrides of the evals settings in `spec_path`.
        template: template of the prompts; default: the template recorded with the model.
        on_reused: called with the measures that are reused from an earlier run in `output_dir`.
        on_note: called with a note if the template differs from the recorded one.

    Raises:
        InputError: tasks, examples and spec are all missing, or the model, the data or the
            template is invalid.
    """
    from evals.run import score_model

    if not (tasks or data_path or spec_path):
        fix = "give --tasks or --data, or a sweep spec as --config"
        raise InputError(Problem(message="nothing to score on", fix=fix))
    given = {name: value for name, value in settings.items() if value is not None}
    spec, evals = _load_spec_and_evals(spec_path, given)
    if not (data_path or spec):
        evals = _WITHOUT_EXAMPLES | evals
    if "pandalm_prompts" in given:  # contains only the opponent
        given["pandalm_prompts"] = (evals.get("pandalm_prompts") or {}) | given["pandalm_prompts"]
    evals |= given
    if tasks:
        shots = evals.pop("num_fewshot", None)
        evals["tasks"] = [{"name": name, "num_fewshot": shots} for name in tasks]
    config = build_config(EvalConfig, evals, source=spec_path or Path("plw eval"))
    # Check these before the model is downloaded from the hub.
    check_output_folder(output_dir, where="--output-dir")
    check_benchmarks(config)
    data = spec.data if spec is not None else DataConfig(path=data_path or "-")
    path = resolve_model_path(_model_in(model))
    used_template = _select_template(
        path, data, template, config, has_spec=spec is not None, on_note=on_note
    )
    template_args = _select_template_args(path, data, used_template)
    defaults = _default_limits(path, data, has_spec=spec is not None)
    # With `data_path`, the spec's data need not exist.
    split = read_split(data) if spec is not None and not data_path else None
    return score_model(
        model_path=path,
        examples=_examples(data_path, split, config),
        training=split.train if split is not None else None,
        template=used_template,
        template_args=template_args,
        max_length=max_length or defaults.max_length,
        truncation_side=defaults.truncation_side,
        config=config,
        out_dir=output_dir,
        untuned_path=resolve_model_path(spec.model.path) if spec is not None else None,
        num_threads=os.cpu_count(),
        on_progress=on_progress,
        on_reused=on_reused,
    )


def _model_in(model: str) -> str:
    """Return the folder of the model in an output folder of `plw train`, else `model`."""
    folder = Path(model).expanduser()
    if (folder / "train.json").is_file() and (folder / "model").is_dir():
        return str(folder / "model")
    return model


class _EvalsFile(BaseModel):
    """A file with only `evals`, for models that were not trained from a spec."""

    model_config = ConfigDict(extra="forbid")

    evals: EvalConfig


def _load_spec_and_evals(
    path: Path | None, given: Mapping[str, Any]
) -> tuple[SweepSpec | None, dict[str, Any]]:
    """Return the sweep spec in a file (None if it has only `evals`) and the evals settings.

    A file with only `evals` may omit the judge if it is in `given`.
    """
    if path is None:
        return None, {}
    content = read_yaml(path)
    if set(content) != {"evals"}:
        _check_has_search(content, path)
        spec = load_spec(path)
        return spec, spec.evals.model_dump(mode="json")
    if isinstance(content["evals"], dict) and "judge" in given:
        content["evals"]["judge"] = given["judge"]
    evals = build_config(_EvalsFile, content, source=path).evals.with_absolute_paths()
    return None, evals.model_dump(mode="json", exclude_unset=True)


def _check_has_search(content: Mapping[str, Any], path: Path) -> None:
    """Check that a file with training settings is a sweep spec.

    Raises:
        InputError: it has no `search`, as the config of `plw train`.
    """
    training = content.keys() - {"evals"}
    if not training or "search" in content or not training <= TrainConfig.model_fields.keys():
        return
    kind = "not a sweep spec" if "evals" in content else "a training config, not a sweep spec"
    raise InputError(
        Problem(
            message=f"--config must be a sweep spec or a file with only evals; this is {kind}, "
            "because it has no search",
            where=str(path),
            fix="give the sweep spec, or omit --config and give --data or --tasks",
        )
    )


def _examples(data_path: str | None, split: Split | None, config: EvalConfig) -> Sequence[Example]:
    if not config.uses_heldout_examples:
        return []
    if data_path:
        return read_examples(data_path)
    if split is None:
        raise InputError(
            Problem(
                message="there are no examples for the measures on held-out examples",
                fix="give --data, or a complete sweep spec as --config",
            )
        )
    return split.heldout


def _select_template(
    path: str,
    data: DataConfig,
    given: str | None,
    config: EvalConfig,
    *,
    has_spec: bool,
    on_note: Callable[[str], None] | None,
) -> str:
    """Return the template for prompts: the given, the recorded or the default one.

    Raises:
        InputError: benchmarks need the checkpoint's template, which is unknown.
    """
    trained = read_prompt_format(path)
    if trained is not None:
        _check_template_unchanged(trained, path, given)
    recorded = trained.template if trained is not None else None
    in_template = (config.tasks or config.benchmarks) and config.task_template == "checkpoint"
    if in_template and not (given or recorded or has_spec):
        raise InputError(
            Problem(
                message=f"{path} has no record of the template it was trained with",
                where="--task-template",
                fix="give --template, or --task-template none",
            )
        )
    if recorded is None:
        # Plain prompts of benchmarks need no chat template, which some tokenizers lack.
        fallback = data.template if config.uses_heldout_examples or has_spec else "plain"
        return given or fallback
    other = given or (data.template if has_spec else recorded)
    if on_note is not None and other != recorded:
        on_note(f"the model was trained with template {recorded}; scored with {given or recorded}")
    return given or recorded


def _select_template_args(path: str, data: DataConfig, template: str) -> dict[str, Any]:
    """Return the template's arguments: the recorded ones, or the spec's, with a date if needed."""
    trained = read_prompt_format(path)
    if trained is not None and trained.template == template:
        args = trained.template_args
    else:
        args = data.template_args if data.template == template else {}
    used = data.model_copy(update={"template": template, "template_args": dict(args)})
    return with_date(used, load_tokenizer(ModelConfig(path=path)), utc_today()).template_args


def _check_template_unchanged(trained: PromptFormat, path: str, given: str | None) -> None:
    if given is not None or trained.template_sha256 is None:
        return
    file = Path(trained.template)
    if not file.is_file() or sha256_file(file) != trained.template_sha256:
        fault = "has changed" if file.is_file() else "no longer exists"
        raise InputError(
            Problem(
                message=f"the template {file} that {path} was trained with {fault}",
                fix="restore it, or give --template",
            )
        )


def _default_limits(path: str, data: DataConfig, *, has_spec: bool) -> PromptFormat | DataConfig:
    """Return where the default maximum length and truncation side come from."""
    trained = read_prompt_format(path)
    return data if trained is None or has_spec else trained
