"""Load a judge's settings, and validate a judge against people."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evals.judge.agreement import Validation, read_human_pairs, read_verdicts, validate
from evals.judge.annotate import judge_pairs
from evals.judge.annotators import ANNOTATORS
from evals.judge.compare import write_judgements
from evals.judge.verdicts import Verdict
from evals.judge_config import JudgeConfig, StyleName
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder, write_json
from trainers.foundation.settings_file import build_config, read_yaml

OnProgress = Callable[[int, int], None]


def load_judge_config(judge_file: Path | None, given: Mapping[str, Any]) -> JudgeConfig:
    """Load a judge's settings from a YAML file or a sweep spec's evals.judge; `given` overrides.

    Raises:
        InputError: the settings are missing or invalid.
    """
    settings: Any = {}
    source = Path("plw judge")
    if judge_file is not None:
        source = judge_file
        settings = read_yaml(judge_file)
        for key in ("evals", "judge") if "evals" in settings else ():
            settings = settings.get(key) or {} if isinstance(settings, Mapping) else settings
    if not isinstance(settings, Mapping):
        problem = Problem(
            message=f"evals.judge must be a group of settings, got {settings!r}",
            where=str(source),
            fix="see docs/judge.md for an example",
        )
        raise InputError(problem)
    if "base_url" in given and "local_model" not in given:
        settings = {key: value for key, value in settings.items() if key != "local_model"}
    if "local_model" in given and "base_url" not in given:
        drop = ("base_url", "model")
        settings = {key: value for key, value in settings.items() if key not in drop}
    return build_config(JudgeConfig, {**settings, **given}, source=source, section="evals.judge")


def validate_judge(
    *,
    data: Path,
    verdicts: Path | None,
    style: StyleName,
    limit: int | None,
    seed: int,
    output_dir: Path | None,
    judge_file: Path | None,
    judge: Mapping[str, Any],
    on_progress: OnProgress,
) -> tuple[Validation, dict[str, Any] | None]:
    """Compare a judge with three people; return the agreement and the judge's counts and costs.

    Counts and costs are None if `verdicts` is set. With `output_dir`, write `validation.json`
    there, and `judgements.jsonl` unless `verdicts` is set.

    Raises:
        InputError: a file is invalid, the judge is not usable, or its budget is too small.
        TrainingError: the judge stopped replying.
    """
    if output_dir is not None:
        check_output_folder(output_dir, where="--output-dir")
    if verdicts is not None and (judge_file or judge):
        raise InputError(
            Problem(message="--verdicts cannot be used with a judge", fix="use one of them")
        )
    pairs = read_human_pairs(data)[:limit]
    found: Mapping[str, Verdict | None]
    judge_cost = None
    if verdicts is not None:
        found = read_verdicts(verdicts, pairs)
    else:
        config = load_judge_config(judge_file, judge)
        results = judge_pairs(
            [item.pair for item in pairs], ANNOTATORS[style], config, on_progress=on_progress
        )
        if output_dir is not None:
            write_judgements(output_dir / "judgements.jsonl", results)
        results.check_complete(config.budget)
        found = {item.pair.id: item.verdict for item in results.judgements}
        judge_cost = results.to_json()
    validation = validate(pairs, found, seed=seed)
    if output_dir is not None:
        content = {**validation.to_json(), "judging": judge_cost}
        write_json(output_dir / "validation.json", content)
    return validation, judge_cost
