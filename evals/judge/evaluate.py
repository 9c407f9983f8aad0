"""Judged tasks: generate a model's outputs, and judge them against an opponent's outputs."""

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from evals.engine.batching import ProgressCallback, ignore_progress
from evals.engine.loaded_model import LoadedModel
from evals.engine.loading import template_and_commit
from evals.judge.annotate import judge_pairs
from evals.judge.annotators import ANNOTATORS
from evals.judge.outputs import OutputGenerator
from evals.judge.outputs_file import (
    Record,
    hash_records,
    outputs_name,
    write_alpaca_eval_outputs,
)
from evals.judge.scores import judged_scores, truncated_share
from evals.judge.suites import JudgedTask
from evals.judge.verdicts import Judgement, Pair
from evals.judge_config import PLW_0, JudgeConfig
from evals.results.evaluation import EvaluationResult, Sample
from evals.results.result_store import checkpoint_identity
from trainers.foundation.cache_dirs import cache_dir


@dataclass(frozen=True, kw_only=True)
class JudgedEvaluation:
    """The evaluation of a model on a judged task, in two steps: its outputs, then the judge.

    Each output is stored in `outputs_dir` and each reply in the judge's cache, so an interrupted
    evaluation continues after the last one. Only the first step uses the model's device.

    `opponent_path` is the opponent if `task` has no reference outputs; `load_opponent` loads it
    with the arguments of `load_model` that concern the template. `batch_size` is the maximum number
    of outputs at the same time; None: the engine chooses.
    """

    loaded: LoadedModel
    task: JudgedTask
    judge: JudgeConfig
    model_path: str | Path
    opponent_path: str | Path | None
    load_opponent: Callable[..., LoadedModel]
    outputs_dir: Path
    batch_size: int | None
    seed: int

    def generate_outputs(self, *, on_progress: ProgressCallback) -> tuple[list[Sample], list[str]]:
        """Return the outputs of the model and of its opponent, generated unless they are stored."""
        total = self.task.num_steps
        generator = OutputGenerator(self.task, self.batch_size)
        commit = getattr(self.loaded.model.config, "_commit_hash", None)
        checkpoint = checkpoint_identity(self.model_path, commit)
        outputs = generator.load_or_generate(
            generator.digest(self.loaded.template, self.loaded, checkpoint),
            lambda: self.loaded,
            self.outputs_dir,
            lambda done, _: on_progress(done, total),
        )
        if self.task.references is not None:
            return outputs, self.task.references
        if self.task.opponent == PLW_0 and str(self.opponent_path) == str(self.model_path):
            # The trial with PLW 0 is its own opponent: all pairs are ties without a request.
            return outputs, [output["output"] for output in outputs]
        return outputs, self._opponent_outputs(generator)

    def evaluate(self, *, on_progress: ProgressCallback) -> EvaluationResult:
        """Return `<task>_win_rate`: the share of pairs in which the judge prefers the model.

        The result also has the task's other scores; see `judged_scores`.

        Raises:
            InputError: the judge is not usable, does not follow the format, or reaches the budget.
            TrainingError: the judge has stopped replying.
        """
        task, total = self.task, self.task.num_steps
        outputs, references = self.generate_outputs(on_progress=on_progress)
        write_alpaca_eval_outputs(
            self.outputs_dir / outputs_name(task.name),
            task.prompts,
            [output["output"] for output in outputs],
            generator=str(self.model_path),
        )
        pairs = [
            Pair(
                id=record.id,
                instruction=record.task,
                candidate=output["output"],
                reference=reference,
            )
            for record, output, reference in zip(task.prompts, outputs, references, strict=True)
        ]
        results = judge_pairs(
            pairs,
            ANNOTATORS[task.style],
            self.judge,
            on_progress=lambda done, _: on_progress(len(task.prompts) + done, total),
        )
        results.check_complete(self.judge.budget)
        samples = [
            _sample(task.name, record, output, judgement)
            for record, output, judgement in zip(
                task.prompts, outputs, results.judgements, strict=True
            )
        ]
        identity = {
            **results.signature,
            "opponent": task.opponent,
            "prompts_sha256": hash_records(task.prompts),
            "references_sha256": hashlib.sha256(json.dumps(references).encode()).hexdigest(),
            "max_new_tokens": task.max_new_tokens,
        }
        scores = judged_scores(task.name, results.judgements, seed=self.seed)
        return EvaluationResult(
            scores=scores[:1],
            secondary=[
                *scores[1:],
                truncated_share(task.name, [not output["stopped"] for output in outputs]),
            ],
            samples=samples,
            signature={task.name: identity},
        )

    def _opponent_outputs(self, generator: OutputGenerator) -> list[str]:
        """Return the opponent's outputs, generated once for all compared models.

        Its weights are read only if outputs are missing.
        """
        path = self.opponent_path
        assert path is not None
        folder = Path(self.judge.cache_dir or cache_dir()).expanduser() / "untuned"
        template = self.loaded.template
        commit = getattr(self.loaded.model.config, "_commit_hash", None)
        is_same = str(path) == str(self.model_path)
        if not is_same:
            template, commit = template_and_commit(path, like=template)

        digest = generator.digest(template, self.loaded, checkpoint_identity(path, commit))
        with ExitStack() as stack:

            def load() -> LoadedModel:
                if is_same:
                    return self.loaded
                # A server of the engine may hold the device's memory.
                self.loaded.engine.close()
                opponent = self.load_opponent(
                    path,
                    template=template.name,
                    template_args=template.args,
                    truncation_side=template.truncation_side,
                )
                stack.callback(opponent.engine.close)
                return opponent

            outputs = generator.load_or_generate(digest, load, folder, ignore_progress)
        return [output["output"] for output in outputs]


def _sample(name: str, record: Record, output: Sample, judgement: Judgement) -> Sample:
    fields = ("num_new_tokens", "stopped", "num_truncated_tokens")
    return {
        "measure": name,
        **judgement.to_json(),
        "prompt": output["prompt"],
        "instruction": judgement.pair.instruction,
        **({} if record.category is None else {"category": record.category}),
        **{name: output[name] for name in fields},
    }
