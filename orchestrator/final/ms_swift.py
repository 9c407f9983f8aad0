"""A config for ms-swift, with a plugin for prompt weights between 0 and 1."""

import json
from pathlib import Path
from typing import Any

from orchestrator.final.frameworks import (
    Export,
    Source,
    common_notes,
    header,
    is_prompt_uniform,
    normalization_note,
    settings_yaml,
    trainer_settings,
)
from trainers.data.roles import PROMPT_ROLES, Role, Template, starts_with_bos
from trainers.foundation.errors import InputError, Problem

_NAME = "prompt_loss_weight"
# ms-swift 4.5: `loss_scale` names a class by which each part of a text gets a weight. A response
# and the end-of-sequence token behind it are RESPONSE and SUFFIX, all else is OTHER.
_PLUGIN = '''\
"""{header}
"""

from swift.loss_scale import LossScale, loss_scale_map
from swift.template import ContextType

PROMPT_LOSS_WEIGHT = {prompt!r}
COMPLETION_LOSS_WEIGHT = {completion!r}


class PromptLossWeight(LossScale):
    is_binary = False

    def __call__(self, context_list, context_types, messages, **kwargs):
        completion = (ContextType.RESPONSE, ContextType.SUFFIX)
        weights = [
            COMPLETION_LOSS_WEIGHT if kind in completion else PROMPT_LOSS_WEIGHT
            for kind in context_types
        ]
        return context_list, weights


loss_scale_map["{name}"] = PromptLossWeight
'''


def swift_export(source: Source, out: Path) -> Export:
    """A config that trains with ms-swift, its data as texts, and a plugin where weights need it.

    Raises:
        InputError: tokens of the prompt have several weights.
    """
    _check(source)
    prompt, completion = _weights(source)
    notes = [normalization_note(source, "ms-swift"), *_own_notes(source), *common_notes(source)]
    data, plugin = f"{out.stem}.train.jsonl", f"{out.stem}_plugin.py"
    lines = header(source, "ms-swift", notes)
    is_masked, is_plain = (prompt, completion) == (0, 1), prompt == completion == 1
    settings = _settings(source, out, str(out.absolute().with_name(data)))
    settings["loss_scale"] = "default" if is_masked else "all" if is_plain else _NAME
    files = {out.name: "", data: _lines(source)}
    if not is_masked and not is_plain:
        settings["external_plugins"] = [str(out.absolute().with_name(plugin))]
        text = "\n".join(lines[:2]).replace("\\", "\\\\").replace('"""', "'''")
        files[plugin] = _PLUGIN.format(
            header=text, prompt=prompt, completion=completion, name=_NAME
        )
    files[out.name] = "".join(f"# {line}\n" for line in lines) + settings_yaml(settings)
    launcher = f"NPROC_PER_NODE={source.num_workers} " if source.num_workers > 1 else ""
    return Export(files, notes, f"{launcher}swift sft {out}")


def _check(source: Source) -> None:
    if not is_prompt_uniform(source):
        raise InputError(
            Problem(
                message="ms-swift is given a prompt as one text, so loss.role_weights of system, "
                "user and template must be equal",
                fix="make them equal, or use plw train; trl and axolotl take weights of 0 and 1",
            )
        )
    if source.config.data.completion_turns == "all" and any(
        turn.role == "assistant" for example in source.train for turn in example.messages[:-1]
    ):
        raise InputError(
            Problem(
                message="ms-swift is given a prompt as one text, so earlier assistant turns cannot "
                "be completion",
                fix="set data.completion_turns to last, or export to trl or axolotl",
            )
        )


def _weights(source: Source) -> tuple[float, float]:
    """Of the prompt's tokens and of the completion's."""
    prompt = next((w for role, w in source.weights.items() if role in PROMPT_ROLES), 0.0)
    return prompt, source.weights[Role.COMPLETION]


def _own_notes(source: Source) -> list[str]:
    notes = [
        "texts are rendered with data.template already and are not templated again "
        "(use_chat_template false)"
    ]
    counts = source.examples.counts
    if counts.num_truncated_examples:
        notes.append(
            f"examples above max_length (here {counts.num_truncated_examples}) are cut from the "
            "left by ms-swift itself, where plw keeps at least one token of the prompt"
        )
    if source.config.loss.label_smoothing and not source.is_binary:
        notes.append("ms-swift drops the weights where labels are smoothed: choose one of the two")
    return notes


def _lines(source: Source) -> str:
    """JSONL with messages: the rendered prompt and the completion."""
    tokenizer = source.tokenizer
    template = Template(source.config.data.template, tokenizer, "last")
    # ms-swift puts the start token there itself, if the tokenizer does.
    bos = str(tokenizer.bos_token) if starts_with_bos(tokenizer) else ""
    lines = []
    for example in source.train:
        turns = [
            {"role": "user", "content": template.render_prompt(example).removeprefix(bos)},
            {"role": "assistant", "content": example.completion},
        ]
        lines.append(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    return "".join(lines)


def _settings(source: Source, out: Path, data: str) -> dict[str, Any]:
    config = source.config
    settings: dict[str, Any] = {
        "model": source.model_path,
        "model_revision": config.model.revision,
        "torch_dtype": config.deepspeed.precision,
        "attn_impl": config.model.attention,
        "dataset": [data],
        "split_dataset_ratio": 0.0,
        "output_dir": f"{out.stem}-model",
        "use_chat_template": False,
        "add_non_thinking_prefix": False,
        "max_length": config.data.max_length,
        "truncation_strategy": "delete" if config.data.too_long == "drop" else "left",
        "tuner_type": "full" if config.lora is None else "lora",
        **trainer_settings(source),
    }
    if config.lora is not None:
        settings |= {
            "lora_rank": config.lora.rank,
            "lora_alpha": config.lora.alpha,
            "lora_dropout": config.lora.dropout,
            "target_modules": config.lora.target_modules or ["all-linear"],
        }
    return {key: value for key, value in settings.items() if value is not None}
