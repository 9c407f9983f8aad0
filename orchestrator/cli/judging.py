"""Commands on a judge, without a model of ours."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evals.judge.agreement import Validation, read_human_pairs, read_verdicts, validate
from evals.judge.annotate import judge_pairs
from evals.judge.annotators import STYLES
from evals.judge.compare import Comparison, compare_outputs, write_judgements
from evals.judge.verdicts import Verdict
from evals.judge_config import JudgeConfig, StyleName
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder, write_json
from trainers.foundation.settings_file import build_config, read_yaml

OnProgress = Callable[[int, int], None]


def judge_of(judge_file: Path | None, given: Mapping[str, Any]) -> JudgeConfig:
    """The judge of a YAML file (its settings, or a sweep spec with evals.judge), with what is
    `given` on top.

    Raises:
        InputError: there is none, or its settings break a rule.
    """
    settings: dict[str, Any] = {}
    source = Path("plw judge")
    if judge_file is not None:
        source = judge_file
        content = read_yaml(judge_file)
        settings = content.get("evals", {}).get("judge") or {} if "evals" in content else content
    if "base_url" in given and "local_model" not in given:
        settings = {key: value for key, value in settings.items() if key != "local_model"}
    if "local_model" in given and "base_url" not in given:
        drop = ("base_url", "model")
        settings = {key: value for key, value in settings.items() if key not in drop}
    return build_config(JudgeConfig, {**settings, **given}, source=source)


def compare_files(
    *,
    outputs: Path,
    reference: Path,
    style: StyleName,
    limit: int | None,
    seed: int,
    out_dir: Path,
    judge_file: Path | None,
    judge: Mapping[str, Any],
    on_progress: OnProgress,
) -> Comparison:
    """`outputs` judged against `reference`; see `evals.judge.compare`.

    Raises:
        InputError, TrainingError: as `compare_outputs`.
    """
    return compare_outputs(
        outputs,
        reference,
        style=style,
        judge=judge_of(judge_file, judge),
        limit=limit,
        seed=seed,
        out_dir=out_dir,
        on_progress=on_progress,
    )


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
    """A judge against three people, and what asking it took; None if its verdicts were given.

    With `output_dir`, writes `validation.json` there, and `judgements.jsonl` if it was asked.

    Raises:
        InputError: the files do not fit, the judge cannot be asked or its budget is too small.
        TrainingError: it has stopped replying.
    """
    if output_dir is not None:
        check_output_folder(output_dir, where="--output-dir")
    if verdicts is not None and (judge_file or judge):
        raise InputError(
            Problem(message="both --verdicts and a judge to ask", fix="give one of them")
        )
    pairs = read_human_pairs(data)[:limit]
    said: Mapping[str, Verdict | None]
    spent = None
    if verdicts is not None:
        said = read_verdicts(verdicts, pairs)
    else:
        config = judge_of(judge_file, judge)
        shown = [item.pair for item in pairs]
        judging = judge_pairs(shown, STYLES[style], config, on_progress=on_progress)
        if output_dir is not None:
            write_judgements(output_dir / "judgements.jsonl", judging)
        judging.refuse_unfinished(config.budget)
        said = {item.pair.id: item.verdict for item in judging.judgements}
        spent = judging.to_json()
    validation = validate(pairs, said, seed=seed)
    if output_dir is not None:
        write_json(output_dir / "validation.json", {**validation.to_json(), "judging": spent})
    return validation, spent
