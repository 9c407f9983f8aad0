"""Define behaviour versions: code changes after which some settings train differently.

A trial's id depends on the version of each change that affects its settings, so that results from
before the change are not reused. The ids of all other trials do not change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BehaviourChange:
    """A code change that affects training.

    `version` is 1 for the first change of its kind; each later change increases it. `affects` takes
    the settings of a trial as nested JSON values. `needs_truncation`: only trials are affected some
    of whose examples are longer than data.max_length and are truncated.
    """

    version: int
    affects: Callable[[Mapping[str, Any]], bool]
    needs_truncation: bool = False


def _renders_whole_chats(settings: Mapping[str, Any]) -> bool:
    """Return whether the change of chat rendering affects a trial with these settings.

    With the chat template, answers now end with the template's end-of-turn token. With other
    templates, only the role of earlier answers changed: before, they had the user's weight.
    """
    template = settings["data"]["template"]
    own_user_weight = settings["loss"].get("role_weights", {}).get("user") is not None
    return template == "chat" or (template not in ("alpaca", "plain") and own_user_weight)


def _counts_completion_tokens_of_weight_0(settings: Mapping[str, Any]) -> bool:
    """Return whether the divisor of a trial counted completion tokens with weight 0 before.

    Either thinking or the answer has weight 0. If both have, all their tokens count, as before.
    """
    weights = settings["loss"].get("role_weights", {})
    completion, thinking = weights.get("completion"), weights.get("thinking")
    thinking = completion if thinking is None else thinking
    counts_completion: bool = settings["loss"]["normalization"] == "completion"
    return counts_completion and (completion == 0) != (thinking == 0)


def _trains_in_bfloat16(settings: Mapping[str, Any]) -> bool:
    """Return whether a trial summed its gradients in bfloat16 before; they are float32 now."""
    precision: str = settings["deepspeed"]["precision"]
    return precision == "bfloat16"


def _excludes_from_weight_decay(settings: Mapping[str, Any]) -> bool:
    """Return whether a trial's norms and biases decayed before; they do not now."""
    optimizer = settings["optimizer"]
    return optimizer["weight_decay"] > 0 and not optimizer.get("decay_norms_and_biases", False)


def _truncates(settings: Mapping[str, Any]) -> bool:
    """Return whether the change of truncation affects a trial whose examples are too long.

    Before, tokens were removed from the left of the prompt, then from the end of the completion.
    """
    return bool(settings["data"]["too_long"] == "truncate")


CHANGES: dict[str, BehaviourChange] = {
    "bfloat16_gradients": BehaviourChange(1, affects=_trains_in_bfloat16),
    "chat_rendering": BehaviourChange(1, affects=_renders_whole_chats),
    "completion_count": BehaviourChange(1, affects=_counts_completion_tokens_of_weight_0),
    "weight_decay": BehaviourChange(1, affects=_excludes_from_weight_decay),
    "truncation": BehaviourChange(1, affects=_truncates, needs_truncation=True),
}


def behaviour_versions(
    settings: Mapping[str, Any], *, is_truncated: bool = False
) -> dict[str, int]:
    """Return the versions of the changes in CHANGES that affect a trial, by name.

    Args:
        settings: complete settings of the trial, as nested JSON values.
        is_truncated: some of its examples are longer than data.max_length and are truncated.
    """
    return {
        name: change.version
        for name, change in CHANGES.items()
        if change.affects(settings) and (is_truncated or not change.needs_truncation)
    }
