"""Export to ms-swift: a YAML config, and a plugin if the weights require one."""

import json
from pathlib import Path
from typing import Any

from orchestrator.export.base import (
    Export,
    Recipe,
    common_notes,
    config_yaml,
    format_weights,
    header_lines,
    normalization_note,
    render_script,
    training_arguments,
)
from orchestrator.foundation.shell_words import shell_path
from trainers.data.examples import check_texts
from trainers.data.roles import COMPLETION_ROLES, PROMPT_ROLES, Role, UntruncatedExample
from trainers.data.span_tokenizer import adds_bos_token
from trainers.data.template import Template
from trainers.foundation.errors import InputError, Problem

# ms-swift 4.5: `loss_scale` names a class that assigns a weight to each part of a text. A response
# is RESPONSE, the end-of-sequence token after it is SUFFIX, and all other parts are OTHER.
_PLUGIN_NAME = "prompt_loss_weight"
_SIDES = {"prompt": (*PROMPT_ROLES, Role.EXCLUDED), "completion": COMPLETION_ROLES}


def export_swift(recipe: Recipe, out: Path) -> Export:
    """Return a config for ms-swift, the data as text, and a plugin if needed.

    Raises:
        InputError: tokens of the prompt, or tokens of the completion, have different weights, or
            ms-swift would make other tokens of the texts.
    """
    check_texts(recipe.train, "ms-swift's data format needs")
    _check(recipe)
    prompt, completion = _prompt_and_completion_weight(recipe)
    notes = [normalization_note(recipe, "ms-swift"), *_swift_notes(recipe), *common_notes(recipe)]
    data, plugin = f"{out.stem}.train.jsonl", f"{out.stem}_plugin.py"
    header = header_lines(recipe, "ms-swift", notes)
    settings = _settings(recipe, out, str(out.absolute().with_name(data)))
    files = {out.name: "", data: _messages_jsonl(recipe)}
    if (prompt, completion) == (0, 1):
        settings["loss_scale"] = "default"
    elif (prompt, completion) == (1, 1):
        settings["loss_scale"] = "all"
    else:
        settings["loss_scale"] = _PLUGIN_NAME
        settings["external_plugins"] = [str(out.absolute().with_name(plugin))]
        files[plugin] = render_script(
            "ms_swift_plugin.py.j2",
            header[:2],
            prompt=repr(prompt),
            completion=repr(completion),
            name=_PLUGIN_NAME,
        )
    files[out.name] = config_yaml(header, settings)
    launcher = f"NPROC_PER_NODE={recipe.num_workers} " if recipe.num_workers > 1 else ""
    return Export(files, notes, f"{launcher}swift sft {shell_path(out)}")


def _check(recipe: Recipe) -> None:
    for side, roles in _SIDES.items():
        if len(_weights_of(recipe, side)) > 1:
            shown = ", ".join(
                f"{role.name.lower()} {format_weights(weights)}"
                for role, weights in recipe.weights.items()
                if role in roles
            )
            raise InputError(
                Problem(
                    message=f"ms-swift gets the {side} as one text, so all its tokens must have "
                    f"one weight, but loss.role_weights or the data give {shown}",
                    fix="make them equal, or use plw train"
                    + (", or export to trl or axolotl" if recipe.has_binary_weights else ""),
                )
            )


def _prompt_and_completion_weight(recipe: Recipe) -> tuple[float, float]:
    prompt, completion = (next(iter(_weights_of(recipe, side)), 0.0) for side in _SIDES)
    return prompt, completion


def _weights_of(recipe: Recipe, side: str) -> frozenset[float]:
    found = (recipe.weights.get(role, frozenset()) for role in _SIDES[side])
    return frozenset[float]().union(*found)


def _swift_notes(recipe: Recipe) -> list[str]:
    notes = [
        "the texts are already rendered with data.template; ms-swift applies no template "
        "(use_chat_template false)"
    ]
    counts = recipe.examples.counts
    if counts.num_truncated_examples:
        notes.append(
            f"ms-swift truncates examples above max_length (here {counts.num_truncated_examples}) "
            "from the left, start token and system turn first; plw keeps the structure of the chat"
        )
    if recipe.config.loss.label_smoothing and not recipe.has_binary_weights:
        notes.append("ms-swift ignores the weights with label smoothing: use one of the two")
    return notes


def _messages_jsonl(recipe: Recipe) -> str:
    """Return JSONL with two messages per example: the rendered prompt and the completion.

    Raises:
        InputError: ms-swift would make other tokens of an example than plw.
    """
    tokenizer, data = recipe.tokenizer, recipe.config.data
    template = Template.for_data(data, tokenizer)
    # Remove the start token, because ms-swift adds it if the tokenizer does.
    bos = str(tokenizer.bos_token) if adds_bos_token(tokenizer) else ""
    lines = []
    for example in recipe.train:
        [whole] = template.tokenize([example])
        turns = [
            {"role": "user", "content": template.render_prompt(example).removeprefix(bos)},
            {"role": "assistant", "content": _completion_text(whole, template)},
        ]
        lines.append(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    return "".join(lines)


def _completion_text(whole: UntruncatedExample, template: Template) -> str:
    """Return the text of a completion, including thinking and tool calls, without its end token.

    ms-swift tokenises the text and adds the end-of-sequence token.

    Raises:
        InputError: this does not give the tokens of the completion, or the prompt also contains
            completions.
    """
    eos_token, ids = template.tokenizer.eos_token, whole.completion_ids
    text = str(template.tokenizer.decode(ids[:-1], skip_special_tokens=False))
    fault = None
    if not set(COMPLETION_ROLES).isdisjoint(whole.prompt_roles):
        fault = "gets the prompt as one text, so earlier assistant turns cannot be completion"
    elif Role.EXCLUDED in whole.completion_roles:
        fault = "gets the completion as one text, so a part of it cannot have weight 0"
    elif ids[-1] != template.tokenizer.eos_token_id:
        end = template.tokenizer.convert_ids_to_tokens(ids[-1])
        fault = f"ends every answer with {eos_token}, but the chat template ends it with {end}"
    elif template.encode_completion(text) != ids:
        fault = "tokenises the completion again, which gives other tokens"
    if fault is not None:
        raise InputError(
            Problem(
                message=f"ms-swift {fault}",
                where=whole.id,
                fix="export to trl or axolotl, which get tokens, or use plw train",
            )
        )
    return text


def _settings(recipe: Recipe, out: Path, data: str) -> dict[str, Any]:
    config = recipe.config
    settings: dict[str, Any] = {
        "model": recipe.model_path,
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
        **training_arguments(recipe),
    }
    if config.lora is not None:
        settings |= {
            "lora_rank": config.lora.rank,
            "lora_alpha": config.lora.alpha,
            "lora_dropout": config.lora.dropout,
            "use_rslora": config.lora.rslora or None,
            "modules_to_save": config.lora.modules_to_save or None,
            "target_modules": config.lora.target_modules or ["all-linear"],
        }
    return settings
