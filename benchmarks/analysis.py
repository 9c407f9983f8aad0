"""Do the statistics hold? The paper's model against glmmTMB, and simulated studies.

Coverage: the share of studies whose 95% interval for the best PLW holds the true one, whatever
shape was found; by where the true top lies, too. False effects: the share of studies without any
effect in which any verdict (overall or of a group) claims one. Bias of the gain: what is reported
for the chosen weight over PLW 0, less what that very weight truly gains, in points.

The studies are those of `benchmarks.studies`. `paper's model` is the beta regression with a random
intercept for each benchmark alone, whose scores of one trial count as so many trials.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.program import Options, command_line, say, wide_console
from benchmarks.studies import GROUPS, PAPER_PLWS, Design, Study, simulate
from orchestrator.statistics.best_weight import QuadraticFit, best_set, critical_plw
from orchestrator.statistics.beta_glmm import fit_beta_glmm
from orchestrator.statistics.trial_points import OVERALL, Trials, collect_trials, fit_curves
from orchestrator.statistics.gains import corrected_gain
from orchestrator.statistics.paper_model import fit_paper_model
from orchestrator.statistics.conclusions import read_verdicts

Array = NDArray[np.float64]

REFERENCE = Path(__file__).parent.parent / "tests/orchestrator/statistics/beta_glmm_simulated.csv"
# R's glmmTMB 1.1.5 on that file: y ~ w + w2 + (1 | bench).
GLMMTMB = {
    "intercept": -0.4783,
    "w": 1.3603,
    "w2": -1.2646,
    "w standard error": 0.1383,
    "w2 standard error": 0.1340,
}
DESIGNS = (
    Design("6 PLW x 3 seeds"),
    Design("6 PLW x 3 seeds that move together", seed_sd=0.1),
    Design("10 PLW x 1 seed", plws=PAPER_PLWS, seeds=1),
    Design("6 PLW x 2 seeds", seeds=2),
    Design("6 PLW x 3 seeds, 15% of scores missing", missing=0.15),
    Design("6 PLW x 3 seeds x 2 models", models=2),
)
ANSWERS = (OVERALL, *GROUPS)
NEAR_END = 0.15
PLACES = ("inside", "near an end", "beyond an end")
# Bends for the bias of the gain: none, and some that few trials can and cannot see.
BENDS = (0.0, 0.3, 1.0)


@dataclass(frozen=True)
class Held:
    """Of one study: whether each answer's interval holds its best, where the top lies, widths."""

    held: tuple[bool, ...]
    places: tuple[str, ...]
    widths: tuple[float, ...]


def glmm_differences() -> dict[str, float]:
    """How far the beta regression is from glmmTMB, by what is compared."""
    table = np.genfromtxt(REFERENCE, delimiter=",", names=True)
    terms = np.column_stack([np.ones(len(table)), table["w"], table["w2"]])
    fit = fit_beta_glmm(table["y"], terms, [table["bench"].astype(np.int64)])
    found = [*fit.coefficients, *fit.standard_errors[1:]]
    return {name: abs(float(value) - reference)
            for (name, reference), value in zip(GLMMTMB.items(), found, strict=True)}  # fmt: skip


def held_in(study: Study) -> Held:
    """What the intervals of a study with an effect hold."""
    trials = collect_trials(study.rows)
    curves = {curve.group: curve for curve in fit_curves(study.rows, trials) if curve.cell is None}
    held, places, widths = [], [], []
    for group in ANSWERS:
        pieces = best_set(curves[group].fit)
        best = study.best(group)
        held.append(any(start - 1e-9 <= best <= end + 1e-9 for start, end in pieces))
        places.append(_place(study.vertex(group)))
        widths.append(sum(end - start for start, end in pieces))
    return Held(tuple(held), tuple(places), tuple(widths))


def _place(vertex: float) -> str:
    if not 0 <= vertex <= 1:
        return PLACES[2]
    return PLACES[0] if NEAR_END <= vertex <= 1 - NEAR_END else PLACES[1]


def coverage_of(design: Design, num_studies: int) -> dict[str, Any]:
    """Coverage by answer and by where the top lies, with the median width in w_p.

    That of a place where no top lies is None.
    """
    found = [held_in(simulate(design, seed)) for seed in range(num_studies)]
    held = np.array([one.held for one in found])
    places = np.array([one.places for one in found])
    widths = np.array([one.widths for one in found])
    return {
        "design": design.name,
        "studies": num_studies,
        "coverage": {name: float(held[:, each].mean()) for each, name in enumerate(ANSWERS)},
        "coverage_by_place": {place: _share(held[places == place]) for place in PLACES},
        "share_by_place": {place: float((places == place).mean()) for place in PLACES},
        "median_width": float(np.median(widths[:, 0])),
    }


def _share(held: NDArray[np.bool_]) -> float | None:
    return float(held.mean()) if held.size else None


def false_effects(design: Design, num_studies: int) -> float:
    """The share of studies without an effect in which some verdict claims one."""
    claimed = [
        any(verdict.claims_effect for verdict in read_verdicts(study.rows))
        for study in (simulate(design, seed, has_effect=False) for seed in range(num_studies))
    ]
    return float(np.mean(claimed))


def gain_bias(design: Design, num_studies: int, bend: float) -> dict[str, float]:
    """Reported less true gain of the chosen weight in points, with the standard error, overall."""
    errors = []
    for seed in range(num_studies):
        study = simulate(design, seed, has_effect=bend > 0, bend=bend or None)
        trials = collect_trials(study.rows)
        fit = _overall(study, trials)
        gain = corrected_gain(fit, 0.0, seed)
        truth = study.rise(OVERALL, gain.w_p)
        covered = gain.low <= truth <= gain.high
        errors.append((_points(trials, gain.value - truth), _points(trials, gain.naive - truth),
                       float(covered)))  # fmt: skip
    table = np.array(errors)
    return {
        "bend": bend,
        "bias": float(table[:, 0].mean()),
        "bias_error": float(table[:, 0].std(ddof=1) / np.sqrt(num_studies)),
        "naive_bias": float(table[:, 1].mean()),
        "naive_bias_error": float(table[:, 1].std(ddof=1) / np.sqrt(num_studies)),
        "coverage": float(table[:, 2].mean()),
    }


def _overall(study: Study, trials: Trials) -> QuadraticFit:
    curves = fit_curves(study.rows, trials)
    return next(curve.fit for curve in curves if curve.group == OVERALL and curve.cell is None)


def _points(trials: Trials, difference: float) -> float:
    return float(trials.in_points(OVERALL, difference))


def paper_false_effects(design: Design, num_studies: int) -> dict[str, float]:
    """How often beta regressions find an effect where there is none, at a nominal 5%."""
    claimed = []
    for seed in range(num_studies):
        rows = simulate(design, seed, has_effect=False).rows
        claimed.append([fit_paper_model(rows, by_trial=each).p_value for each in (False, True)])
    shares = (np.array(claimed) < 0.05).mean(axis=0)
    return {"benchmark": float(shares[0]), "benchmark and trial": float(shares[1])}


def measure(num_studies: int, num_other: int, num_paper: int) -> dict[str, Any]:
    """All of it; the first design gets `num_studies`, the others and the gains `num_other`."""
    began = time.monotonic()
    differences = glmm_differences()
    counts = [num_studies] + [num_other] * (len(DESIGNS) - 1)
    coverage, effects = [], []
    for design, count in zip(DESIGNS, counts, strict=True):
        coverage.append(coverage_of(design, count))
        effects.append(false_effects(design, count))
        say(f"{design.name}: coverage {coverage[-1]['coverage'][OVERALL]:.1%}, false effects "
            f"{effects[-1]:.1%} in {count} studies")  # fmt: skip
    gains = [gain_bias(DESIGNS[0], num_other, bend) for bend in BENDS]
    say("gains")
    paper = paper_false_effects(DESIGNS[0], num_paper)
    say("the paper's model")
    return {
        "glmm_largest_difference": max(differences.values()),
        "coverage": coverage[0]["coverage"][OVERALL],
        "false_effect_rate": effects[0],
        "critical_plw": critical_plw(),
        "designs": [{**one, "false_effect_rate": rate}
                    for one, rate in zip(coverage, effects, strict=True)],
        "gains": gains,
        "paper_false_effect_rates": paper,
        "seconds": time.monotonic() - began,
    }  # fmt: skip


def show(found: dict[str, Any], console: Console) -> None:
    """The tables for people."""
    console.print(f"glmmTMB: largest difference {found['glmm_largest_difference']:.1e}")
    console.print(f"critical PLW of the published fit: {found['critical_plw']:.3f}\n")
    table = Table(title="coverage of the best PLW and false effects", title_justify="left",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for name in ("design", "studies", *ANSWERS, *PLACES, "width", "false effects"):
        table.add_column(name.replace("_", " "), justify="left" if name == "design" else "right")
    for one in found["designs"]:
        shares = [*one["coverage"].values(), *one["coverage_by_place"].values()]
        shown = ["-" if share is None else f"{share:.1%}" for share in shares]
        table.add_row(one["design"], str(one["studies"]), *shown,
                      f"{one['median_width']:.2f}", f"{one['false_effect_rate']:.1%}")  # fmt: skip
    console.print(table)
    table = Table(title="reported less true gain over PLW 0, in points", title_justify="left",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    for name in ("bend", "corrected", "as fitted", "coverage"):
        table.add_column(name, justify="right")
    for one in found["gains"]:
        table.add_row(f"{one['bend']:g}", f"{one['bias']:+.3f} ± {one['bias_error']:.3f}",
                      f"{one['naive_bias']:+.3f} ± {one['naive_bias_error']:.3f}",
                      f"{one['coverage']:.1%}")  # fmt: skip
    console.print(table)
    paper = found["paper_false_effect_rates"]
    console.print(
        f"false effects of beta regression at a nominal 5%: {paper['benchmark']:.1%} with the "
        f"paper's random intercept, {paper['benchmark and trial']:.1%} with one for each trial too"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options: Options = {
        "--studies": (int, 2000, "studies of the first design"),
        "--other-studies": (int, 500, "of other designs and the gains"),
        "--paper-studies": (int, 100, "studies for beta regression"),
    }
    return command_line("benchmarks.analysis", __doc__, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    options = parser().parse_args(arguments)
    if min(options.studies, options.other_studies, options.paper_studies) < 2:
        print("at least two studies of each kind are needed", file=sys.stderr)
        return 2
    found = measure(options.studies, options.other_studies, options.paper_studies)
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    show(found, wide_console(130))
    return 0


if __name__ == "__main__":
    sys.exit(main())
