"""What a judge is to decide: prompts, and whose outputs the model's are compared with.

Nothing here needs a model or asks a judge: a sweep can check all of it before it trains anything.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.config import EvalConfig
from evals.judge_config import JudgedConfig, StyleName, api_key
from evals.judged_sets import Record, pair_up, read_outputs, read_prompts

UNTUNED = "untuned"


@dataclass(frozen=True, kw_only=True)
class JudgedTask:
    """Prompts with an opponent: its outputs, or None for those of the untuned model."""

    name: str
    style: StyleName
    prompts: list[Record]
    opponent: str
    references: list[str] | None
    max_new_tokens: int

    @property
    def num_steps(self) -> int:
        """What progress counts: each prompt is answered once and judged once."""
        return 2 * len(self.prompts)


def judged_tasks(config: EvalConfig) -> list[JudgedTask]:
    """The tasks of `config` that a judge decides, with all that their files hold.

    Raises:
        InputError: a file cannot be read or does not fit.
    """
    tasks = []
    if (alpaca := config.alpaca_eval) is not None:
        records = _some(read_outputs(alpaca.reference), alpaca.examples, config.seed)
        tasks.append(_against_file("alpaca_eval", "ranking", records, alpaca.reference, alpaca))
    if (pandalm := config.pandalm) is not None:
        prompts = _some(read_prompts(pandalm.prompts), pandalm.examples, config.seed)
        if pandalm.opponent == UNTUNED:
            tasks.append(
                JudgedTask(
                    name="pandalm",
                    style="verdict",
                    prompts=prompts,
                    opponent=UNTUNED,
                    references=None,
                    max_new_tokens=pandalm.max_new_tokens,
                )
            )
        else:
            records = _answers(prompts, pandalm.opponent)
            tasks.append(_against_file("pandalm", "verdict", records, pandalm.opponent, pandalm))
    for own in config.judged:
        records = _some(read_outputs(own.path), own.examples, config.seed)
        tasks.append(_against_file(own.name, own.style, records, own.path, own))
    return tasks


def check_judging(config: EvalConfig) -> None:
    """Return if the files of the judged measures are as they should be, and the judge has its key.

    Raises:
        InputError: they are not, or it has none.
    """
    if judged_tasks(config) and config.judge is not None:
        api_key(config.judge)


def _against_file(
    name: str, style: StyleName, records: list[Record], path: str, settings: JudgedConfig
) -> JudgedTask:
    return JudgedTask(
        name=name,
        style=style,
        prompts=records,
        opponent=Path(path).name,
        references=[record.output or "" for record in records],
        max_new_tokens=settings.max_new_tokens,
    )


def _answers(prompts: Sequence[Record], path: str) -> list[Record]:
    """`prompts` with the outputs of the file at `path`."""
    asked = [Record(id=p.id, instruction=p.instruction, input=p.input, output="") for p in prompts]
    pairs, _ = pair_up(asked, read_outputs(path), where=path)
    return [
        Record(id=p.id, instruction=p.instruction, input=p.input, output=pair.reference)
        for p, pair in zip(prompts, pairs, strict=True)
    ]


def _some(records: list[Record], count: int | None, seed: int) -> list[Record]:
    """`count` of the records, drawn by `seed`, in their order; a larger count adds to a smaller."""
    if count is None or count >= len(records):
        return records

    def rank(index: int) -> bytes:
        record = records[index]
        return hashlib.sha256(
            f"{seed} {index} {record.instruction}".encode("utf-8", "surrogatepass")
        ).digest()

    chosen = sorted(range(len(records)), key=rank)[:count]
    return [records[index] for index in sorted(chosen)]
