"""Build maps of scores over prompt and completion weight, if a sweep varied both."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.findings import Panel, WeightMap
from orchestrator.analysis.weight_sentences import map_sentences
from orchestrator.record.folder import TrialRecord
from orchestrator.spec.two_weights import loss_weights_of, settings_without_weights
from orchestrator.statistics.weight_grid import fit_weight_grid
from orchestrator.statistics.weight_trials import WeightTrial

# Fewer pairs cannot separate the effects of the two weights.
_MIN_PAIRS = 3


def weight_maps(
    panel: Panel, trials: Sequence[TrialRecord], labels: Mapping[str, str]
) -> list[WeightMap]:
    """Return a map of the leading panel's values for each base and set of other settings.

    A map needs several prompt weights and several completion weights.

    Args:
        panel: the leading panel: overall scores, scores of the only group, or held-out loss.
        labels: labels of the bases, by key.
    """
    scores = {
        trial_id: value
        for point in panel.points
        for trial_id, value in zip(point.trial_ids, point.values, strict=True)
    }
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[TrialRecord]] = {}
    for trial in trials:
        if trial.id in scores:
            identity = tuple(sorted(settings_without_weights(trial.settings).items()))
            groups.setdefault((trial.base, identity), []).append(trial)
    drawn = {key: members for key, members in groups.items() if _is_map(members)}
    return [
        _map(panel, members, scores, _label(labels.get(base, ""), dict(identity), list(drawn)))
        for (base, identity), members in drawn.items()
    ]


def _is_map(trials: Sequence[TrialRecord]) -> bool:
    pairs = {loss_weights_of(trial.settings) for trial in trials}
    prompts, completions = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    return len(pairs) >= _MIN_PAIRS and len(prompts) > 1 and len(completions) > 1


def _label(
    base: str, identity: Mapping[str, str], drawn: Sequence[tuple[str, tuple[tuple[str, str], ...]]]
) -> str:
    """Return the base and the settings that distinguish this map; empty for a single map."""
    if len(drawn) == 1:
        return ""
    others = [dict(identity) for _, identity in drawn]
    differing = [key for key in identity if len({other.get(key) for other in others}) > 1]
    # A base's label already names its model and data.
    distinguishing = [
        f"{key} {identity[key]}" for key in differing if not (base and _is_of_base(key))
    ]
    return ", ".join(filter(None, [base, *distinguishing]))


def _is_of_base(key: str) -> bool:
    return key.partition(".")[0] in ("model", "data")


def _map(
    panel: Panel, trials: Sequence[TrialRecord], scores: Mapping[str, float], label: str
) -> WeightMap:
    found: dict[tuple[float, float, str], WeightTrial] = {}
    for trial in trials:
        prompt, completion = loss_weights_of(trial.settings)
        seed = str(trial.settings["seed"])
        # A completion weight of null means 1, so such trials are duplicates and count once.
        found.setdefault(
            (prompt, completion, seed),
            WeightTrial(
                prompt_weight=prompt,
                completion_weight=completion,
                seed=seed,
                score=scores[trial.id],
            ),
        )
    is_higher_better = panel.higher_is_better is not False
    grid = fit_weight_grid(list(found.values()), higher_is_better=is_higher_better)
    settings: Mapping[str, Any] = trials[0].settings
    return WeightMap(
        label=label,
        scores=panel.title,
        unit=panel.unit,
        higher_is_better=is_higher_better,
        grid=grid,
        trial_ids=[trial.id for trial in trials],
        sentences=map_sentences(
            grid,
            unit=panel.unit,
            higher_is_better=is_higher_better,
            normalization=str(settings["loss"]["normalization"]),
            max_grad_norm=float(settings["optimizer"]["max_grad_norm"]),
        ),
    )
