"""Rules for a search over the prompt weight and the completion weight together."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from orchestrator.foundation.redaction import flatten
from orchestrator.spec.setting_fields import COMPLETION_WEIGHT, INTERVAL_SETTINGS, PLW
from trainers.data.roles import PROMPT_ROLES

# Ratios are rounded to nine digits: as floats, 0.1 / 0.3 and 0.3 / 0.9 differ in the last bit.
_RATIO_DIGITS = 9


def loss_weights_of(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Return the prompt and completion weight of a trial; a completion weight of null is 1."""
    loss = settings["loss"]
    # Records of earlier versions have no role weights.
    completion = loss.get("role_weights", {}).get("completion")
    return float(loss["prompt_loss_weight"]), 1.0 if completion is None else float(completion)


def ratio_of(prompt_weight: float, completion_weight: float) -> float | None:
    """Return prompt / completion weight to nine digits; None for completion weight 0."""
    if completion_weight == 0:
        return None
    return float(f"{prompt_weight / completion_weight:.{_RATIO_DIGITS}g}")


def settings_without_weights(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that trials must share to compare their two weights.

    These are all settings that determine a result, except the base, the two weights and the seed.
    """
    excluded = (PLW, COMPLETION_WEIGHT, "seed")
    return {
        key: str(value)
        for key, value in flatten(settings)
        if key not in excluded and key.partition(".")[0] not in INTERVAL_SETTINGS
    }


def zero_weights_fix(searched: Mapping[str, Any], method: str) -> str | None:
    """Return the fix for a point whose weights are both 0; None for other points."""
    if searched.get(PLW) != 0 or searched.get(COMPLETION_WEIGHT) != 0:
        return None
    if method == "grid":
        return f"add search.exclude: [{{{PLW}: 0, {COMPLETION_WEIGHT}: 0}}]"
    return f"add search.constraints: [{PLW} + {COMPLETION_WEIGHT} > 0]"


def only_ratio_counts_warning(all_settings: Iterable[Mapping[str, Any]]) -> str | None:
    """Return a warning if trials vary both weights but only their ratio has an effect.

    `loss.normalization: weights` divides by the sum of all weights, so a common factor of both
    weights cancels with every optimizer.
    """
    found: dict[tuple[tuple[str, str], ...], set[tuple[float, float]]] = {}
    for settings in all_settings:
        roles = settings["loss"]["role_weights"]
        has_role_weight = any(roles[role.name.lower()] is not None for role in PROMPT_ROLES)
        if settings["loss"]["normalization"] != "weights" or has_role_weight:
            continue
        found.setdefault(tuple(settings_without_weights(settings).items()), set()).add(
            loss_weights_of(settings)
        )
    both = [
        pairs
        for pairs in found.values()
        if all(len(set(weights)) > 1 for weights in zip(*pairs, strict=True))
    ]
    if not both:
        return None
    pairs = max(both, key=_num_duplicates)
    num_duplicates = _num_duplicates(pairs)
    duplicates = (
        f": {num_duplicates} of {len(pairs)} pairs train the same model as another"
        if num_duplicates
        else ""
    )
    return (
        "loss.normalization: weights divides by the sum of all weights, so only the ratio of "
        f"prompt to completion weight has an effect{duplicates}. Use completion, nonzero or "
        "tokens to search both weights"
    )


def _num_duplicates(pairs: Collection[tuple[float, float]]) -> int:
    return len(pairs) - len({ratio_of(*pair) for pair in pairs})
