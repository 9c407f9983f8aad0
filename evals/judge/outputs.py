"""Generate and store the outputs of a model for the prompts of a judged task."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.engine.batching import ProgressCallback
from evals.engine.generation import generate
from evals.engine.loaded_model import LoadedModel
from evals.judge.suite_records import join_turns
from evals.judge.suites import JudgedTask
from evals.results.evaluation import Sample
from evals.results.response_log import ResponseLog
from trainers.data.roles import EncodedExample
from trainers.data.template import Template
from trainers.foundation.files import read_json, write_json

# Increase it when the same model may answer the same prompts differently.
OUTPUTS_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """A model's reply to one turn of a prompt."""

    prompt: EncodedExample
    text: str
    num_tokens: int


class OutputGenerator:
    """Generates and stores the outputs of models for the prompts of a task."""

    def __init__(self, task: JudgedTask, batch_size: int | None) -> None:
        self._task = task
        self._batch_size = batch_size

    def load_or_generate(
        self,
        digest: str,
        load: Callable[[], LoadedModel],
        folder: Path,
        on_progress: ProgressCallback,
    ) -> list[Sample]:
        """Return an output for each prompt, loaded from `folder` or generated and stored there.

        Args:
            digest: identifies the outputs; see `digest`.
            load: returns the model; called only if outputs are missing.
        """
        path = folder / f"{self._task.name}-{digest[:12]}.json"
        outputs = _read_outputs(path, digest)
        if outputs is None:
            log = ResponseLog(path.with_suffix(".answers.jsonl"), {"identity_sha256": digest})
            outputs = self._generate(load(), log, on_progress)
            write_json(path, {"identity_sha256": digest, "outputs": outputs})
            log.discard()
        return outputs

    def digest(self, template: Template, loaded: LoadedModel, checkpoint: dict[str, Any]) -> str:
        """Return a digest of everything that the outputs of a checkpoint depend on.

        Args:
            template: the template with the checkpoint's tokenizer.
            loaded: a model with the same maximum length on the same device.
        """
        identity = {
            "version": OUTPUTS_VERSION,
            "checkpoint": checkpoint,
            "template": template.name,
            "template_source": template.source,
            # Outputs of earlier versions had no arguments.
            **({"template_args": template.args} if template.args else {}),
            "max_length": loaded.max_length,
            "max_new_tokens": self._task.max_new_tokens,
            "device": loaded.device.type,
            "batch_size": self._batch_size,
            "engine": loaded.engine.name,
            "prompts": [
                (record.instruction, record.input, *record.turns) for record in self._task.prompts
            ],
        }
        return hashlib.sha256(json.dumps(identity).encode("utf-8")).hexdigest()

    def _generate(
        self, loaded: LoadedModel, log: ResponseLog, on_progress: ProgressCallback
    ) -> list[Sample]:
        """Return an output for each prompt; `log` stores the tokens of each finished answer.

        The prompt of a later turn contains the model's answers to the earlier ones.
        """
        replies: list[list[_Reply]] = [[] for _ in self._task.prompts]
        num_turns = [max(len(record.turns), 1) for record in self._task.prompts]
        for turn in range(max(num_turns, default=0)):
            places = [n for n, count in enumerate(num_turns) if turn < count]

            def report(done: int, before: int = sum(map(len, replies))) -> None:
                share = (before + done) / sum(num_turns)
                on_progress(int(share * len(replies)), len(replies))

            for n, reply in zip(
                places, self._answer_turn(loaded, turn, places, replies, log, report), strict=True
            ):
                replies[n].append(reply)
        return [
            {
                "id": record.id,
                "instruction": record.instruction,
                "input": record.input,
                "prompt": loaded.decode(list(of_prompt[-1].prompt.input_ids)),
                "output": join_turns([reply.text for reply in of_prompt]),
                "num_new_tokens": sum(reply.num_tokens for reply in of_prompt),
                "stopped": all(reply.num_tokens < self._task.max_new_tokens for reply in of_prompt),
                "num_truncated_tokens": sum(
                    reply.prompt.num_truncated_tokens for reply in of_prompt
                ),
            }
            for record, of_prompt in zip(self._task.prompts, replies, strict=True)
        ]

    def _answer_turn(
        self,
        loaded: LoadedModel,
        turn: int,
        places: Sequence[int],
        replies: Sequence[Sequence["_Reply"]],
        log: ResponseLog,
        report: Callable[[int], None],
    ) -> list["_Reply"]:
        """Return the replies to one turn of the prompts at `places`."""
        # `max_length` does not apply here, because it limits training examples.
        capacity = loaded.prompt_capacity(self._task.max_new_tokens, name=self._task.name)
        prompts = [
            loaded.template.truncate_prompt(
                self._task.prompts[n].to_example([reply.text for reply in replies[n]]), capacity
            )
            for n in places
        ]
        keys = [f"{n}.{turn}" if turn else str(n) for n in places]
        pending = [index for index, key in enumerate(keys) if log.get(key) is None]
        generate(
            loaded,
            [list(prompts[index].input_ids) for index in pending],
            max_new_tokens=self._task.max_new_tokens,
            batch_size=self._batch_size,
            on_progress=lambda done, _: report(len(keys) - len(pending) + done),
            on_output=lambda place, ids: log.add(keys[pending[place]], ids),
        )
        answers: list[list[int]] = [log.get(key) for key in keys]
        return [
            _Reply(
                prompt=prompt,
                text=loaded.tokenizer.decode(
                    ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
                num_tokens=len(ids),
            )
            for prompt, ids in zip(prompts, answers, strict=True)
        ]


def _read_outputs(path: Path, digest: str) -> list[Sample] | None:
    try:
        content = read_json(path)
        is_same = content["identity_sha256"] == digest
        outputs: list[Sample] = content["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return outputs if is_same else None
