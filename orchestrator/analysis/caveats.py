"""What a reader must know before acting on a sweep's scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from evals.results.scores import Score, ScoreCard
from orchestrator.analysis.answer import generation_ratio
from orchestrator.analysis.cut_data import cut_data
from orchestrator.analysis.findings import Findings
from orchestrator.record.bases import base_labels
from orchestrator.record.folder import SweepRecord
from orchestrator.statistics.aggregates import RELATIVE
from orchestrator.statistics.from_records import HELDOUT_LOSS


def caveats(sweep: SweepRecord, findings: Findings, has_untuned: bool) -> Iterator[str]:
    """The caveats, the most important first; `has_untuned`: every untuned model was scored."""
    yield from _of_answer(findings)
    yield from _notes(sweep)
    yield from _ratios(sweep, findings)
    if findings.normalizations:
        modes = " and ".join(findings.normalizations)
        yield (
            f"Loss normalization: {modes}. A PLW under two modes is two settings, which are never "
            "pooled."
        )
    yield from _cut(sweep)
    if not findings.trials.scored:
        yield "No trial has been scored yet."
    elif findings.groups_not_measured:
        groups = ", ".join(group.replace("_", " ") for group in findings.groups_not_measured)
        yield f"Not measured: {groups}."
    if not has_untuned:
        models = (
            "Not every untuned model was" if len(sweep.bases) > 1 else "The untuned model was not"
        )
        yield f"{models} scored, so whether tuning helped is unknown."
    if findings.varied and findings.is_about_plw:
        yield (
            f"Settings that varied beside PLW: {', '.join(findings.varied)}. The learning rate is "
            "adjusted for; trials that differ in anything else are never pooled."
        )
    counts = findings.trials
    if counts.failed or counts.unfinished:
        yield (
            f"{counts.failed} of {counts.planned} trials failed and {counts.unfinished} did not "
            "finish; the answer is from the others."
        )
    if counts.stopped:
        yield (
            f"{counts.stopped} of {counts.planned} trials were stopped early for falling behind "
            "and have no scores. The others are the better ones, so differences between weights "
            "look smaller than they are."
        )


def _of_answer(findings: Findings) -> Iterator[str]:
    """What intervals and verdicts rest on."""
    if findings.is_demo:
        yield "DEMO: model and data are small, to show how the tool works, not which PLW is best."
    intervals = {point.interval for panel in findings.panels for point in panel.points}
    if "items" in intervals:
        yield (
            "Intervals of settings with one seed are over items only. Another training seed can "
            "move a score by more."
        )
    if "seeds" in intervals:
        yield (
            "Intervals of settings with several seeds are over training seeds (Student t), for "
            "these items. With two or three seeds they are wide."
        )
    if findings.panels and findings.is_about_plw:
        yield (
            "Verdicts compare trials, which are what is repeated, and within seeds where weights "
            "share seeds (docs/analysis.md). Whether two intervals overlap decides nothing."
        )
        yield from _notes_on(findings)
    if findings.unused_scores:
        yield (
            "Left out of the answer, because their units have no known bounds: "
            f"{', '.join(findings.unused_scores)}."
        )


def _notes_on(findings: Findings) -> Iterator[str]:
    """What the statistics note, once; what concerns the held-out loss alone says so."""
    noted = findings.scores.notes if findings.scores else ()
    own = findings.losses.notes if findings.losses else ()
    yield from (f"{note[0].upper()}{note[1:]}." for note in noted or own)
    if noted:
        yield from (f"Held-out loss: {note}." for note in own if note not in noted)


def score_caveats(shown: Iterable[Score]) -> Iterator[str]:
    """Caveats on the scores in the trials' table."""
    names = {score.name for score in shown}
    if RELATIVE in names:
        yield (
            "Aggregate relative: the mean over all benchmarks of the log odds above those of the "
            "untuned model; 0 is as good as untuned. Its interval is over the items of both models."
        )
    if "training_bleu" in names:
        yield (
            "BLEU on training prompts above that on held-out prompts is memorisation. Neither it "
            "nor the length of outputs says that a model is better."
        )


def overlap_caveats(
    labels: Mapping[str, str], cards: Mapping[str, Sequence[ScoreCard]]
) -> Iterator[str]:
    """Which measures have items that occur in the training data, and how many, for each base."""
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
        of = f"{labels[key]}: " if labels.get(key) else ""
        yield (
            f"{of}The training data contains {found}, by 13 words in a row or as a whole: a model "
            "may have memorised them."
        )


def _overlapping(score: Score | None) -> int:
    return (score.num_overlapping or 0) if score else 0


def _notes(sweep: SweepRecord) -> Iterator[str]:
    """The caveats that came with the models, and that of the spec."""
    for note in dict.fromkeys(base.model.get("note") for base in sweep.bases):
        if note:
            yield f"Model: {str(note).rstrip('.')}."
    if sweep.spec.get("note"):
        yield f"{str(sweep.spec['note']).rstrip('.')}."


def _cut(sweep: SweepRecord) -> Iterator[str]:
    """What of which training data was too long."""
    labels = base_labels(sweep.bases)
    for base in sweep.bases:
        of = f"{labels[base.key]}: " if labels[base.key] else ""
        yield from (f"{of}{sentence}" for data in base.data for sentence in cut_data(data))


def _ratios(sweep: SweepRecord, findings: Findings) -> Iterator[str]:
    """What the generation ratio of the training data is, or those of several, and means."""
    meaning = "generation ratio R_g (completion tokens over prompt tokens)"
    if findings.generation_ratio is not None:
        yield (
            f"The training data's {meaning} is {findings.generation_ratio:.3g}; the best PLW is "
            "known to depend on it."
        )
        return
    labels = base_labels(sweep.bases)
    found = [
        f"{ratio:.3g} for {labels[base.key] or data.get('path')}"
        for base in sweep.bases
        for data in base.data
        if (ratio := generation_ratio(data)) is not None
    ]
    if found:
        yield (
            f"The training data's {meaning} is {', '.join(dict.fromkeys(found))}; the best PLW is "
            "known to depend on it, so look at each by itself."
        )
