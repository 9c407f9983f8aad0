"""Judge two files of outputs, without loading the models that generated them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from evals.judge.annotate import JudgeResults, judge_pairs
from evals.judge.annotators import ANNOTATORS
from evals.judge.outputs_file import hash_records, match_outputs, read_outputs
from evals.judge.scores import judged_scores
from evals.judge_config import JudgeConfig, StyleName
from evals.results.scores import Score
from trainers.foundation.files import check_output_folder, write_json, write_text

if TYPE_CHECKING:  # This imports torch, which `plw judge` does not need.
    from evals.engine.batching import ProgressCallback


class Comparison(BaseModel):
    """Scores of one file of outputs against another.

    `num_left_out` references have no output to compare with. `missing` pairs were not judged
    because the budget was reached; the scores are those of the other pairs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outputs: str
    reference: str
    scores: list[Score]
    num_left_out: int
    missing: list[str]
    judging: dict[str, Any]
    signature: dict[str, Any]


def compare_outputs(
    outputs: Path,
    reference: Path,
    *,
    style: StyleName,
    judge: JudgeConfig,
    limit: int | None,
    seed: int,
    out_dir: Path,
    on_progress: "ProgressCallback",
) -> Comparison:
    """Judge `outputs` against `reference`, two files in AlpacaEval's format.

    Writes `out_dir/judgements.jsonl` (one line per pair with both outputs, replies and verdicts)
    and `out_dir/comparison.json`. `limit` selects the first pairs.

    Raises:
        InputError: the prompts of the files differ; see also `judge_pairs`.
        TrainingError: see `judge_pairs`.
    """
    check_output_folder(out_dir, where="--output-dir")
    candidates, references = read_outputs(outputs), read_outputs(reference)
    pairs, num_left_out = match_outputs(candidates[:limit], references, where=str(outputs))
    results = judge_pairs(pairs, ANNOTATORS[style], judge, on_progress=on_progress)
    write_judgements(out_dir / "judgements.jsonl", results)
    comparison = Comparison(
        outputs=str(outputs),
        reference=str(reference),
        scores=judged_scores("judged", results.judgements, seed=seed),
        num_left_out=num_left_out,
        missing=results.missing,
        judging=results.to_json(),
        signature={
            **results.signature,
            "outputs_sha256": hash_records(candidates[:limit]),
            "references_sha256": hash_records(references),
            "seed": seed,
        },
    )
    write_json(out_dir / "comparison.json", comparison.model_dump(mode="json"))
    return comparison


def write_judgements(path: Path, results: JudgeResults) -> None:
    """Write one line per judgement to `path`, atomically."""
    lines = [json.dumps(item.to_json(), ensure_ascii=False) for item in results.judgements]
    write_text(path, "".join(line + "\n" for line in lines))
