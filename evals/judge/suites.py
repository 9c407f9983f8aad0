"""What a judge is to decide: prompts, and whose outputs the model's are compared with.

Nothing here needs a model or asks a judge: a sweep can check all of it before it trains anything.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.config import EvalConfig
from evals.judge.outputs_file import Record, pair_up, read_outputs, read_prompts
from evals.judge_config import UNTUNED, JudgedConfig, StyleName, api_key
from trainers.foundation.errors import InputError, Problem

_ALPACA_EVAL = "alpaca_eval/text_davinci_003_outputs.json"
_PANDALM = "pandalm/testset-inference-v1.json"


@dataclass(frozen=True, kw_only=True)
class JudgedTask:
    """Prompts with an opponent: its outputs, or None for those that a model is to generate: the
    one in `opponent_model`, or the untuned one.
    """

    name: str
    style: StyleName
    prompts: list[Record]
    opponent: str
    references: list[str] | None
    opponent_model: str | None = None
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
        path = alpaca.reference or _in_data_root(config, "alpaca_eval.reference", _ALPACA_EVAL)
        records = _some(read_outputs(path), alpaca, config)
        tasks.append(_against_file("alpaca_eval", "ranking", records, path, alpaca))
    if (pandalm := config.pandalm) is not None:
        path = pandalm.prompts or _in_data_root(config, "pandalm.prompts", _PANDALM)
        prompts = _some(read_prompts(path), pandalm, config)
        is_model = Path(pandalm.opponent).expanduser().is_dir()
        if pandalm.opponent == UNTUNED or is_model:
            tasks.append(
                JudgedTask(
                    name="pandalm",
                    style="verdict",
                    prompts=prompts,
                    opponent=Path(pandalm.opponent).name,
                    references=None,
                    opponent_model=pandalm.opponent if is_model else None,
                    max_new_tokens=pandalm.max_new_tokens,
                )
            )
        else:
            records = _answers(prompts, pandalm.opponent)
            tasks.append(_against_file("pandalm", "verdict", records, pandalm.opponent, pandalm))
    for own in config.judged:
        records = _some(read_outputs(own.path), own, config)
        tasks.append(_against_file(own.name, own.style, records, own.path, own))
    return tasks


def check_judging(config: EvalConfig) -> None:
    """Return if the files of the judged measures are as they should be, and the judge has its key.

    Raises:
        InputError: they are not, or it has none.
    """
    if judged_tasks(config) and config.judge is not None:
        api_key(config.judge)


def check_opponents(tasks: Sequence[JudgedTask], untuned_path: str | Path | None) -> None:
    """Return if each of `tasks` has somebody's outputs to compare with, or can have.

    Raises:
        InputError: the opponent is the untuned model, and `untuned_path` is None.
    """
    for task in tasks:
        if task.references is None and (task.opponent_model or untuned_path) is None:
            raise InputError(
                Problem(
                    message=f"{task.name} against the untuned model, but none is known here",
                    where=f"evals.{task.name}.opponent",
                    fix="give a file of outputs, or a model folder, as the opponent",
                )
            )


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


def _in_data_root(config: EvalConfig, setting: str, layout: str) -> str:
    if config.data_root is None:
        raise InputError(
            Problem(
                message=f"evals.{setting} names no file, and there is no evals.data_root",
                fix=f"set evals.data_root to a folder that holds {layout}, or evals.{setting}",
            )
        )
    return str(Path(config.data_root).expanduser() / layout)


def _some(records: list[Record], settings: JudgedConfig, config: EvalConfig) -> list[Record]:
    """The records to ask about, in their order: drawn by the seed, or the first ones.

    A larger number adds to the items of a smaller one.
    """
    count = settings.examples
    if count is None:
        return records[: config.limit]

    def rank(index: int) -> bytes:
        key = f"{config.seed} {index} {records[index].instruction}"
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

    chosen = sorted(range(len(records)), key=rank)[:count]
    return [records[index] for index in sorted(chosen)]
