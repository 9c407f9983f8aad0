"""Write the caveats of a sweep: limits of its scores that readers must know."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from evals.results.scores import Score, ScoreCard
from orchestrator.analysis.findings import Findings
from orchestrator.analysis.sweep_findings import generation_ratio
from orchestrator.analysis.truncation import truncation_warnings
from orchestrator.record.baselines import baseline_labels, data_name
from orchestrator.record.folder import SweepRecord
from orchestrator.statistics.aggregates import RELATIVE_AGGREGATE
from orchestrator.statistics.from_records import HELDOUT_LOSS
from orchestrator.statistics.messages import capitalize


def caveats(sweep: SweepRecord, findings: Findings, has_untuned: bool) -> Iterator[str]:
    """Yield the caveats, most important first.

    Args:
        has_untuned: whether all untuned models were scored.
    """
    yield from _answer_caveats(findings)
    yield from _notes(sweep)
    yield from _generation_ratios(sweep, findings)
    if findings.normalizations:
        modes = " and ".join(findings.normalizations)
        yield (
            f"Loss normalization: {modes}. The same PLW under different normalizations is a "
            "different setting; they are never pooled."
        )
    yield from _truncation(sweep)
    if sweep.spec.get("export_best_every_steps") is not None:
        yield (
            "Each trial exported the model with the lowest held-out completion loss during "
            "training. Its held-out loss was used to choose it, so it is too low on average; "
            "benchmarks are not affected. MLflow also has the loss after the last step."
        )
    if not findings.trials.scored:
        yield "No trial has been scored yet."
    elif findings.groups_not_measured:
        groups = ", ".join(group.replace("_", " ") for group in findings.groups_not_measured)
        yield f"Not measured: {groups}."
    if not has_untuned:
        models = (
            "Not every untuned model was" if len(sweep.bases) > 1 else "The untuned model was not"
        )
        yield f"{models} scored, so it is unknown whether tuning helped."
    if findings.varied and findings.is_about_plw:
        is_crossed = findings.lead is not None and findings.lead.best_rates
        treated = "compare weights at one" if is_crossed else "adjust for the"
        yield (
            f"Settings that varied besides PLW: {', '.join(findings.varied)}. Verdicts {treated} "
            "learning rate; trials with other differences are never pooled."
        )
    counts = findings.trials
    if counts.failed or counts.unfinished:
        yield (
            f"{counts.failed} of {counts.planned} trials failed and {counts.unfinished} did not "
            "finish; the results exclude them."
        )
    if counts.stopped:
        yield (
            f"{counts.stopped} of {counts.planned} trials were stopped early for low performance "
            "and have no scores. The remaining trials are the better ones, so differences "
            "between weights are underestimated."
        )


def _answer_caveats(findings: Findings) -> Iterator[str]:
    """Yield caveats on intervals and verdicts."""
    if findings.is_demo:
        yield "DEMO: model and data are small; they show how the tool works, not which PLW is best."
    intervals = {point.interval for panel in findings.panels for point in panel.points}
    if "items" in intervals:
        yield (
            "Intervals of settings with one seed, or whose seeds have equal scores, are over items "
            "only; the spread over training seeds may be larger."
        )
    if "seeds" in intervals:
        yield (
            "Intervals of settings with several seeds are over training seeds (Student's t), for "
            "a fixed set of items. With two or three seeds they are wide."
        )
    if findings.panels and findings.is_about_plw:
        is_within = any(panel.is_within_seeds for panel in findings.of_kind("answer"))
        shared = " and compare weights within shared seeds" if is_within else ""
        yield (
            f"Verdicts treat the trial as the unit of replication{shared} (docs/analysis.md). "
            "Overlapping intervals do not decide a verdict."
        )
        yield from _statistics_notes(findings)
    if findings.unused_scores:
        yield (
            "Excluded from the results, because their units have no known bounds: "
            f"{', '.join(findings.unused_scores)}."
        )


def _statistics_notes(findings: Findings) -> Iterator[str]:
    """Yield each note of the statistics once; notes only on the held-out loss get a prefix."""
    noted = findings.scores.notes if findings.scores else ()
    of_losses = findings.losses.notes if findings.losses else ()
    yield from (f"{capitalize(note)}." for note in noted or of_losses)
    if noted:
        yield from (f"Held-out loss: {note}." for note in of_losses if note not in noted)


def score_caveats(shown: Iterable[Score]) -> Iterator[str]:
    """Yield caveats on the scores in the table of trials."""
    names = {score.name for score in shown}
    if RELATIVE_AGGREGATE in names:
        yield (
            "Aggregate relative: mean over all benchmarks of the log odds minus those of the "
            "untuned model; 0 equals the untuned model. Its interval is over the items of both "
            "models."
        )
    if "training_bleu" in names:
        yield (
            "BLEU that is higher on training prompts than on held-out prompts indicates "
            "memorisation. Neither BLEU nor output length measures quality."
        )


def overlap_caveats(
    labels: Mapping[str, str], cards: Mapping[str, Sequence[ScoreCard]]
) -> Iterator[str]:
    """Yield a caveat for each base with evaluation items that overlap its training data.

    The caveat lists the measures and the number of such items, as `evals.contamination.ngrams`
    counts them.
    """
    for key, of_base in cards.items():
        most: dict[str, Score] = {}
        for score in (score for card in of_base for score in card.scores):
            counts = score.group is not None or score.name == HELDOUT_LOSS
            if counts and (score.num_overlapping or 0) > _overlapping(most.get(score.name)):
                most[score.name] = score
        if not most:
            continue
        found = ", ".join(
            f"{_overlapping(score)} of {score.num_items} items of {score.name} "
            f"({_overlapping(score) / score.num_items:.0%})"
            for score in most.values()
        )
        prefix = f"{labels[key]}: " if labels.get(key) else ""
        yield (
            f"{prefix}Overlap with the training data: {found}. Such an item shares 13 words in a "
            "row, its prompt or its whole text with a training example. A model may have memorised "
            "it, or only its wording may be common (docs/method.md)."
        )


def _overlapping(score: Score | None) -> int:
    return (score.num_overlapping or 0) if score else 0


def _notes(sweep: SweepRecord) -> Iterator[str]:
    """Yield the notes of the models and of the spec."""
    for note in dict.fromkeys(base.model.get("note") for base in sweep.bases):
        if note:
            yield f"Model: {str(note).rstrip('.')}."
    if sweep.spec.get("note"):
        yield f"{str(sweep.spec['note']).rstrip('.')}."


def _truncation(sweep: SweepRecord) -> Iterator[str]:
    """Yield the truncation warnings of all training data."""
    labels = baseline_labels(sweep.bases)
    for base in sweep.bases:
        prefix = f"{labels[base.key]}: " if labels[base.key] else ""
        yield from (
            f"{prefix}{sentence}" for data in base.data for sentence in truncation_warnings(data)
        )


def _generation_ratios(sweep: SweepRecord, findings: Findings) -> Iterator[str]:
    """Yield a caveat with the generation ratio of the training data."""
    meaning = "generation ratio R_g (completion tokens over prompt tokens)"
    if findings.generation_ratio is not None:
        yield (
            f"The training data's {meaning} is {findings.generation_ratio:.3g}; the best PLW "
            "is known to depend on it."
        )
        return
    labels = baseline_labels(sweep.bases)
    found = [
        f"{ratio:.3g} for {labels[base.key] or data_name(data)}"
        for base in sweep.bases
        for data in base.data
        if (ratio := generation_ratio(data)) is not None
    ]
    if found:
        yield (
            f"The training data's {meaning} is {', '.join(dict.fromkeys(found))}; the best PLW "
            "is known to depend on it, so compare each data set separately."
        )
