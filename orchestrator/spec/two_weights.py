"""Rules of a search over the prompt weight and the completion weight together."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from orchestrator.foundation.redaction import flatten
from orchestrator.spec.setting_fields import CADENCE, COMPLETION_WEIGHT, PLW

# Ratios are told apart by nine digits: 0.1 / 0.3 and 0.3 / 0.9 differ in the last bit of a float.
_RATIO_DIGITS = 9
_PROMPT_ROLES = ("system", "user", "template")


def weights_of(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Prompt and completion weight of a trial's settings; a completion weight of null is 1."""
    loss = settings["loss"]
    # Records of earlier versions have no weights of roles.
    completion = loss.get("role_weights", {}).get("completion")
    return float(loss["prompt_loss_weight"]), 1.0 if completion is None else float(completion)


def ratio_of(prompt_weight: float, completion_weight: float) -> float | None:
    """Prompt / completion weight, to nine digits; None for completion weight 0."""
    if completion_weight == 0:
        return None
    return float(f"{prompt_weight / completion_weight:.{_RATIO_DIGITS}g}")


def other_identity(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that trials must share for their two weights to be compared, but for the base.

    All that decide a result, apart from the two weights and the seed.
    """
    own = (PLW, COMPLETION_WEIGHT, "seed")
    return {
        key: str(value)
        for key, value in flatten(settings)
        if key not in own and key.partition(".")[0] not in CADENCE
    }


def fix_of_zero_weights(searched: Mapping[str, Any], method: str) -> str | None:
    """What to write where a point has both weights 0; None for any other point."""
    if searched.get(PLW) != 0 or searched.get(COMPLETION_WEIGHT) != 0:
        return None
    if method == "grid":
        return f"add search.exclude: [{{{PLW}: 0, {COMPLETION_WEIGHT}: 0}}]"
    return f"add search.constraints: [{PLW} + {COMPLETION_WEIGHT} > 0]"


def ratio_alone_warning(all_settings: Iterable[Mapping[str, Any]]) -> str | None:
    """Says that only the ratio counts, where trials vary both weights and this is so.

    `loss.normalization: weights` divides by the sum of all weights, so that a common factor of both
    cancels, whatever the optimizer.
    """
    found: dict[tuple[tuple[str, str], ...], set[tuple[float, float]]] = {}
    for settings in all_settings:
        roles = settings["loss"]["role_weights"]
        has_own = any(roles[role] is not None for role in _PROMPT_ROLES)
        if settings["loss"]["normalization"] != "weights" or has_own:
            continue
        found.setdefault(tuple(other_identity(settings).items()), set()).add(weights_of(settings))
    both = [
        pairs
        for pairs in found.values()
        if all(len(set(weights)) > 1 for weights in zip(*pairs, strict=True))
    ]
    if not both:
        return None
    pairs = max(both, key=_num_same)
    num_same = _num_same(pairs)
    same = f": {num_same} of {len(pairs)} pairs train the same model as another" if num_same else ""
    return (
        "loss.normalization weights divides by the sum of all weights, so that only the ratio of "
        f"prompt to completion weight counts{same}. Take completion, nonzero or tokens to search "
        "both weights"
    )


def _num_same(pairs: Collection[tuple[float, float]]) -> int:
    return len(pairs) - len({ratio_of(*pair) for pair in pairs})
