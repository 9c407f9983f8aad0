"""Judge two files of outputs, without any model of ours."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from evals.judge.annotate import Judging, judge_pairs
from evals.judge.annotators import STYLES
from evals.judge.outputs_file import digest_of, pair_up, read_outputs
from evals.judge.scores import judged_scores
from evals.judge_config import JudgeConfig, StyleName
from evals.results.scores import Score
from trainers.foundation.files import check_output_folder, write_json, write_text

if TYPE_CHECKING:  # It brings torch, which judging does without.
    from evals.engine.batching import Progress


class Comparison(BaseModel):
    """How one file of outputs fares against another.

    `num_left_out` references have no output to compare with; `missing` pairs the budget did not
    reach: then the scores are those of the others.
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
    on_progress: "Progress",
) -> Comparison:
    """The win rate of `outputs` over `reference`, both laid out as AlpacaEval's files.

    Writes `out_dir/judgements.jsonl`, a line for each pair with both outputs, all replies and
    verdicts, and `out_dir/comparison.json`. `limit` takes the first pairs alone.

    Raises:
        InputError: the files do not fit together, or as `judge_pairs`.
        TrainingError: as `judge_pairs`.
    """
    check_output_folder(out_dir, where="--output-dir")
    candidates, references = read_outputs(outputs), read_outputs(reference)
    pairs, num_left_out = pair_up(candidates[:limit], references, where=str(outputs))
    judging = judge_pairs(pairs, STYLES[style], judge, on_progress=on_progress)
    write_judgements(out_dir / "judgements.jsonl", judging)
    comparison = Comparison(
        outputs=str(outputs),
        reference=str(reference),
        scores=judged_scores("judged", judging.judgements, seed=seed),
        num_left_out=num_left_out,
        missing=judging.missing,
        judging=judging.to_json(),
        signature={
            **judging.signature,
            "outputs_sha256": digest_of(candidates[:limit]),
            "references_sha256": digest_of(references),
            "seed": seed,
        },
    )
    write_json(out_dir / "comparison.json", comparison.model_dump(mode="json"))
    return comparison


def write_judgements(path: Path, judging: Judging) -> None:
    """Put every judgement at `path`, one a line, in one step."""
    lines = [json.dumps(item.to_json(), ensure_ascii=False) for item in judging.judgements]
    write_text(path, "".join(line + "\n" for line in lines))
