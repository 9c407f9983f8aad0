"""Check that a sweep trains the trials with PLW 0 whose outputs are the opponent's."""

from collections.abc import Sequence

from orchestrator.plan.planner import TrialPlan
from orchestrator.spec.search_points import initial_points
from orchestrator.spec.setting_fields import PLW
from orchestrator.spec.sweep_spec import SweepSpec
from trainers.foundation.errors import InputError, Problem

_OTHER = "set evals.pandalm_prompts.opponent to a file of outputs, a model folder or untuned"


def check_opponents(spec: SweepSpec, trials: Sequence[TrialPlan]) -> None:
    """Check that each trial has an opponent in pandalm_prompts if that is the trial with PLW 0.

    Raises:
        InputError: the sweep has no trial with PLW 0 and the same other settings, or early stopping
            may end it.
    """
    if not spec.evals.needs_plw_0_trial:
        return
    if spec.search.early_stopping is not None:
        raise InputError(
            _problem(
                "search.early_stopping may stop the trial with PLW 0, whose outputs are those of "
                "the opponent in pandalm_prompts",
                f"remove search.early_stopping, or {_OTHER}",
            )
        )
    planned = {trial.id for trial in trials}
    if spec.search.method == "grid":
        without = [trial.searched for trial in trials if trial.opponent not in planned]
        subject = f"the trial {without[0]}" if without else ""
    else:
        # Each point of the search has other values of these settings.
        others = [dotted for dotted in spec.search.space if dotted != PLW]
        has_plw_0 = any(point.get(PLW) == 0 for point in initial_points(spec.search))
        without = [] if has_plw_0 and not others else [{}]
        subject = f"a trial of the search over {', '.join(spec.search.space)}"
    if without:
        raise InputError(
            _problem(
                f"the opponent in pandalm_prompts is the trial with PLW 0 and the same other "
                f"settings and seed, and the sweep has none for {subject}",
                f"add 0 to search.space.{PLW}, or {_OTHER}",
            )
        )


def _problem(message: str, fix: str) -> Problem:
    return Problem(message=message, where="evals.pandalm_prompts.opponent", fix=fix)
