"""Measures that a judge decides: the model's outputs against an opponent's, pair by pair."""

import hashlib
import json
from pathlib import Path

from evals.engine.batching import Progress
from evals.engine.generation import generate
from evals.engine.loading import LoadedModel, load_model
from evals.judge.annotate import judge_pairs
from evals.judge.annotators import STYLES
from evals.judge.outputs_file import digest_of
from evals.judge.scores import judged_scores
from evals.judge.suites import JudgedTask
from evals.judge.verdicts import Judgement, Pair
from evals.judge_config import JudgeConfig
from evals.results.measurement import Measured, Sample
from evals.results.response_log import Answers
from evals.results.result_store import checkpoint_identity
from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import read_json, write_json

# Raised whenever the same model may answer the same prompts otherwise than before.
OUTPUTS_VERSION = 1


def measure_judged(
    loaded: LoadedModel,
    task: JudgedTask,
    judge: JudgeConfig,
    *,
    model_path: str | Path,
    untuned_path: str | Path | None,
    outputs_dir: Path,
    batch_size: int,
    seed: int,
    on_progress: Progress,
) -> Measured:
    """`<task>_win_rate`: the share of pairs in which the judge likes the model's output better.

    Also `<task>_length_controlled_win_rate` where there are pairs enough, and
    `<task>_consistent_verdicts`; see `judged_scores`. The outputs are kept in `outputs_dir` and
    the judge's replies in its cache, one by one, so a measure that was ended goes on where it
    stopped. `untuned_path` is the opponent where `task` has no outputs of one.

    Raises:
        InputError: the judge cannot be asked, holds to no format, or costs more than the budget.
        TrainingError: the judge has stopped replying.
    """
    total = task.num_steps
    half = len(task.prompts)
    answer = _Answerer(task, batch_size)
    outputs = answer.kept(loaded, model_path, outputs_dir, lambda done, _: on_progress(done, total))
    references = task.references or answer.of_untuned(loaded, model_path, untuned_path, judge)
    pairs = [
        Pair(id=record.id, instruction=record.task, candidate=output["output"], reference=reference)
        for record, output, reference in zip(task.prompts, outputs, references, strict=True)
    ]
    judging = judge_pairs(
        pairs,
        STYLES[task.style],
        judge,
        on_progress=lambda done, _: on_progress(half + done, total),
    )
    judging.refuse_unfinished(judge.budget)
    samples = [
        _sample(task, output, judged)
        for output, judged in zip(outputs, judging.judgements, strict=True)
    ]
    identity = {
        **judging.signature,
        "opponent": task.opponent,
        "prompts_sha256": digest_of(task.prompts),
        "references_sha256": hashlib.sha256(json.dumps(references).encode()).hexdigest(),
        "max_new_tokens": task.max_new_tokens,
    }
    scores = judged_scores(task.name, judging.judgements, seed=seed)
    return Measured(
        scores=scores[:1],
        secondary=scores[1:],
        samples=samples,
        signature={task.name: identity},
    )


class _Answerer:
    """Has models answer the prompts of a task, and keeps the answers."""

    def __init__(self, task: JudgedTask, batch_size: int) -> None:
        self._task = task
        self._batch_size = batch_size

    def kept(
        self, loaded: LoadedModel, model_path: str | Path, folder: Path, on_progress: Progress
    ) -> list[Sample]:
        """An answer for each prompt: those in `folder`, or new ones, which go there."""
        digest = self._digest(loaded, model_path)
        path = folder / f"{self._task.name}-{digest[:12]}.json"
        known = _read_answers(path, digest)
        if known is None:
            answers = Answers(path.with_suffix(".answers.jsonl"), {"identity_sha256": digest})
            known = self._generate(loaded, answers, on_progress)
            write_json(path, {"identity_sha256": digest, "outputs": known})
            answers.discard()
        return known

    def of_untuned(
        self,
        loaded: LoadedModel,
        model_path: str | Path,
        untuned_path: str | Path | None,
        judge: JudgeConfig,
    ) -> list[str]:
        """The untuned model's answers, generated once for all that are compared with it."""
        assert untuned_path is not None
        folder = Path(judge.cache_dir or cache_dir()).expanduser() / "untuned"
        untuned = loaded
        if str(untuned_path) != str(model_path):
            untuned = load_model(
                untuned_path, template=loaded.template.name, max_length=loaded.max_length
            )
        answers = self.kept(untuned, untuned_path, folder, _say_nothing)
        return [answer["output"] for answer in answers]

    def _digest(self, loaded: LoadedModel, model_path: str | Path) -> str:
        commit = getattr(loaded.model.config, "_commit_hash", None)
        identity = {
            "version": OUTPUTS_VERSION,
            "checkpoint": checkpoint_identity(model_path, commit),
            "template": loaded.template.name,
            "template_source": loaded.template.source,
            "max_length": loaded.max_length,
            "max_new_tokens": self._task.max_new_tokens,
            "device": loaded.device.type,
            "batch_size": self._batch_size,
            "prompts": [(record.instruction, record.input) for record in self._task.prompts],
        }
        return hashlib.sha256(json.dumps(identity).encode("utf-8")).hexdigest()

    def _generate(
        self, loaded: LoadedModel, answers: Answers, on_progress: Progress
    ) -> list[Sample]:
        """An answer for each prompt, the tokens of each kept in `answers` once they are there."""
        room = self._prompt_room(loaded)
        whole = [loaded.template.encode_prompt(r.as_example()) for r in self._task.prompts]
        prompts = [ids[-room:] for ids in whole]
        left = [n for n in range(len(prompts)) if answers.get(str(n)) is None]
        num_kept = len(prompts) - len(left)
        generate(
            loaded,
            [prompts[n] for n in left],
            max_new_tokens=self._task.max_new_tokens,
            batch_size=self._batch_size,
            on_progress=lambda done, _: on_progress(num_kept + done, len(prompts)),
            on_output=lambda place, ids: answers.add(str(left[place]), ids),
        )
        generated = [answers.get(str(n)) for n in range(len(prompts))]
        return [
            {
                "id": record.id,
                "instruction": record.instruction,
                "input": record.input,
                "prompt": loaded.decode(prompt),
                "output": loaded.tokenizer.decode(
                    ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
                "num_new_tokens": len(ids),
                "stopped": len(ids) < self._task.max_new_tokens,
                "num_truncated_tokens": len(all_ids) - len(prompt),
            }
            for record, all_ids, prompt, ids in zip(
                self._task.prompts, whole, prompts, generated, strict=True
            )
        ]

    def _prompt_room(self, loaded: LoadedModel) -> int:
        """Tokens of a prompt that are kept: all that leave positions for the output.

        Not `max_length`, which bounds training examples: these prompts are the benchmark's.
        """
        if loaded.max_positions is None:
            return loaded.max_length
        room = loaded.max_positions - self._task.max_new_tokens
        if room < 1:
            raise InputError(
                Problem(
                    message=(
                        f"max_new_tokens of {self._task.name} must leave room for a prompt in the"
                        f" model's {loaded.max_positions} positions, got"
                        f" {self._task.max_new_tokens}"
                    ),
                    where="evals",
                    fix="set it to a smaller number",
                )
            )
        return room


def _read_answers(path: Path, digest: str) -> list[Sample] | None:
    try:
        content = read_json(path)
        is_ours = content["identity_sha256"] == digest
        outputs: list[Sample] = content["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return outputs if is_ours else None


def _sample(task: JudgedTask, output: Sample, judged: Judgement) -> Sample:
    shown = judged.to_json()
    shown["prompt"] = output["prompt"]
    also = ("num_new_tokens", "stopped", "num_truncated_tokens")
    return {
        "measure": task.name,
        **shown,
        "instruction": judged.pair.instruction,
        **{name: output[name] for name in also},
    }


def _say_nothing(done: int, total: int) -> None:
    """The listener when nobody listens."""
