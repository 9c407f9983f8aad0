"""The report of a sweep: report.md, one self-contained report.html, and the plots.

A view of the files in the sweep's folder: writing it again is always safe, also while trials run.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.scores import Score, ScoreCard
from orchestrator.aggregates import aggregate_name, with_aggregates
from orchestrator.analysis import GROUPS, best_label, headline, read_findings
from orchestrator.bases import base_labels
from orchestrator.caveats import caveats, overlap_caveats, score_caveats
from orchestrator.findings import Findings, Measure, Point, format_value
from orchestrator.plain import flatten, redact, to_yaml
from orchestrator.plots import ALL_PANELS, file_stem, write_plots
from orchestrator.record import SweepFolder, SweepRecord, TrialRecord
from trainers.files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
LOSSES_OF_ROLES = ("heldout_system_loss", "heldout_user_loss", "heldout_template_loss")
MAX_ERROR_CHARS = 2000
SECONDS_PER_MINUTE = 60
MINUTES_PER_HOUR = 60


def write_report(folder: SweepFolder) -> Path:
    """Write the plots, report.md and report.html of a sweep, finished or not.

    Returns the path of report.html.
    """
    findings = read_findings(folder)
    plots = write_plots(findings.measures, folder.plots)
    context = _context(folder, findings, plots)
    for path in (folder.report_md, folder.report_html):
        template = _templates().get_template(f"{path.name}.j2")
        write_text(path, template.render(context))
    return folder.report_html


def report_json(folder: SweepFolder) -> dict[str, Any]:
    """The report's content as JSON data: headline, findings, trials with scores, circumstances."""
    sweep = folder.read_sweep()
    findings = read_findings(folder)
    untuned, cards = {}, {}
    for base in sweep.bases:
        card = folder.read_base_scores(base.key)
        cards[base.key] = card
        untuned[base.key] = _dumped(card, None)
    trials = []
    for trial in folder.read_trials():
        scores = _dumped(folder.read_scores(trial.id), cards.get(trial.base))
        trials.append({**trial.model_dump(mode="json"), "scores": scores})
    content = {
        "headline": headline(findings),
        "findings": findings.model_dump(mode="json"),
        "untuned": untuned,
        "trials": trials,
        "sweep": sweep.model_dump(mode="json"),
    }
    redacted: dict[str, Any] = redact(content)
    return redacted


def _dumped(card: ScoreCard | None, untuned: ScoreCard | None) -> list[dict[str, Any]] | None:
    """The scores of a card, aggregates and all."""
    if card is None:
        return None
    scores: list[dict[str, Any]] = with_aggregates(card, untuned).model_dump(mode="json")["scores"]
    return scores


def _context(folder: SweepFolder, findings: Findings, plots: Mapping[str, Path]) -> dict[str, Any]:
    sweep = folder.read_sweep()
    trials = folder.read_trials()
    untuned = {base.key: folder.read_base_scores(base.key) for base in sweep.bases}
    tried = [
        (trial, _aggregated(folder.read_scores(trial.id), untuned.get(trial.base)))
        for trial in trials
    ]
    untuned = {key: _aggregated(card, None) for key, card in untuned.items()}
    columns = _score_columns([*(card for _, card in tried), *untuned.values()])
    return {
        "sweep": sweep,
        "findings": findings,
        "headline": headline(findings),
        "plots": [
            {
                "title": measure.title,
                "alt": _alt_text(measure),
                "data": base64.b64encode(plots[measure.id].read_bytes()).decode(),
            }
            for measure in findings.measures
            if measure.id in plots
        ],
        "has_plots": ALL_PANELS in plots,
        "panel_files": [file_stem(name) for name in plots if name != ALL_PANELS],
        "best_rows": [_best_row(measure) for measure in findings.measures],
        "has_other": any(_searched(trial) for trial in trials),
        "columns": [column_title(score) for score in columns.values()],
        "trials": [
            *_trial_rows(tried, columns),
            *_untuned_rows(base_labels(sweep.bases), untuned, columns),
        ],
        "failures": _failures(trials),
        "caveats": redact(
            [
                *caveats(sweep, findings, None not in untuned.values()),
                *score_caveats(columns.values()),
                *overlap_caveats(base_labels(sweep.bases), _cards_by_base(tried, untuned)),
            ]
        ),
        "command": redact(str(sweep.environment.get("command") or f"plw sweep {sweep.spec_path}")),
        "spec": to_yaml(sweep.spec),
        "circumstances": [
            (title, [(key, str(value)) for key, value in flatten(redact(section))])
            for title, section in _circumstances(sweep)
        ],
    }


def _circumstances(sweep: SweepRecord) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the sweep ran on, each with its title."""
    labels = base_labels(sweep.bases)
    for base in sweep.bases:
        of = f" of {labels[base.key]}" if labels[base.key] else ""
        yield f"Model{of}", base.model
        for data in base.data:
            yield f"Data{of}", data
    yield "Environment", sweep.environment


def _aggregated(card: ScoreCard | None, untuned: ScoreCard | None) -> ScoreCard | None:
    return None if card is None else with_aggregates(card, untuned)


def _cards_by_base(
    tried: Sequence[tuple[TrialRecord, ScoreCard | None]],
    untuned: Mapping[str, ScoreCard | None],
) -> dict[str, list[ScoreCard]]:
    """All cards there are, those of the untuned models too, by the keys of their bases."""
    found: dict[str, list[ScoreCard]] = {key: [] for key in untuned}
    for base, card in [*((trial.base, card) for trial, card in tried), *untuned.items()]:
        if card is not None:
            found.setdefault(base, []).append(card)
    return found


def _score_columns(cards: Iterable[ScoreCard | None]) -> dict[str, Score]:
    """One score of each measure that any model has, by name: the groups' first, then losses.

    Left out is what says little at the price of a column: losses of the roles that a prompt is
    made of, and means of a single benchmark.
    """
    columns: dict[str, Score] = {}
    for card in cards:
        for score in card.scores if card else ():
            columns.setdefault(score.name, score)
    sizes = Counter(score.group for score in columns.values())
    single = [aggregate_name(group) for group in GROUPS if sizes[group] == 1]
    for name in (*LOSSES_OF_ROLES, *single):
        columns.pop(name, None)
    places = [*GROUPS, None]
    return dict(sorted(columns.items(), key=lambda item: places.index(item[1].group)))


def column_title(score: Score) -> str:
    """`Multiple choice accuracy` for `multiple_choice_accuracy`."""
    name = score.name
    if score.group is not None and not name.startswith(score.group):
        name = f"{score.group} {name}"
    title = name.replace("_", " ").replace("chrf", "chrF").replace("heldout", "held-out")
    title = title.replace("bleu", "BLEU")
    return title[:1].upper() + title[1:]


def _trial_rows(
    tried: Sequence[tuple[TrialRecord, ScoreCard | None]], columns: Mapping[str, Score]
) -> list[dict[str, Any]]:
    return [
        {
            "plw": f"{trial.prompt_loss_weight:g}",
            "id": trial.id,
            "searched": _searched(trial),
            "seed": str(trial.settings.get("seed", "-")),
            "state": _state(trial),
            "completion_loss": format_value(trial.final_completion_loss, "nats"),
            "prompt_loss": format_value(trial.final_prompt_loss, "nats"),
            "scores": _score_cells(card, columns),
            "tokens_per_second": _count(trial.tokens_per_second),
            "time": _duration(trial.train_seconds, trial.eval_seconds),
        }
        for trial, card in sorted(tried, key=lambda pair: pair[0].prompt_loss_weight)
    ]


def _untuned_rows(
    labels: Mapping[str, str],
    untuned: Mapping[str, ScoreCard | None],
    columns: Mapping[str, Score],
) -> list[dict[str, Any]]:
    """A row for the untuned model of each base, which is labelled where there are several."""
    return [
        {
            "plw": "untuned",
            "id": key if labels[key] else "",
            "searched": labels[key],
            "seed": "",
            "state": "scored" if card else "not scored",
            "completion_loss": "-",
            "prompt_loss": "-",
            "scores": _score_cells(card, columns),
            "tokens_per_second": "-",
            "time": _duration(None, card.seconds if card else None),
        }
        for key, card in untuned.items()
    ]


def _score_cells(card: ScoreCard | None, columns: Mapping[str, Score]) -> list[str]:
    by_name = card.by_name() if card else {}
    return [_score_cell(by_name.get(name)) for name in columns]


def _score_cell(score: Score | None) -> str:
    if score is None:
        return "-"
    value = format_value(score.value, score.unit)
    if score.ci_low is None or score.ci_high is None:
        return value
    low, high = (format_value(bound, score.unit) for bound in (score.ci_low, score.ci_high))
    return f"{value} ({low} to {high})"


def _best_row(measure: Measure) -> dict[str, Any]:
    best = measure.best
    untuned = measure.untuned
    against = {
        True: "the best observed is clearly better",
        False: "the best observed is not clearly better",
        None: "not compared",
    }
    return {
        "measure": measure.title,
        "direction": "higher is better" if measure.higher_is_better else "lower is better",
        "best": best_label(measure),
        "value": measure.describe(best) if best else "-",
        "verdict": measure.verdict,
        "is_named": measure.is_named,
        "basis": _basis(best) if best else "-",
        "untuned": measure.describe(untuned) if untuned else "not scored",
        "against_untuned": against[measure.beats_untuned],
    }


def _basis(point: Point) -> str:
    num_seeds = len(point.seeds)
    return f"{point.num_items} items, {num_seeds} seed{'s' if num_seeds > 1 else ''}"


def _alt_text(measure: Measure) -> str:
    values = "; ".join(f"{point.label}: {measure.describe(point)}" for point in measure.points)
    untuned = f"; untuned: {measure.describe(measure.untuned)}" if measure.untuned else ""
    return f"{measure.title} over prompt loss weight. {values}{untuned}."


def _name(trial: TrialRecord) -> str:
    searched = _searched(trial)
    return f"PLW {trial.prompt_loss_weight:g}{f', {searched}' if searched else ''} ({trial.id})"


def _searched(trial: TrialRecord) -> str:
    other = {
        key: value
        for key, value in trial.searched.items()
        if key.rpartition(".")[2] not in ("prompt_loss_weight", "seed")
    }
    return ", ".join(f"{key} {value}" for key, value in other.items())


def _state(trial: TrialRecord) -> str:
    return f"{trial.state}, {trial.attempts} attempts" if trial.attempts > 1 else trial.state


def _failures(trials: Iterable[TrialRecord]) -> list[dict[str, str]]:
    """Each reason once, with the trials that failed for it."""
    by_reason: dict[str, list[str]] = {}
    for trial in trials:
        if trial.state == "failed":
            by_reason.setdefault(_shorten(trial.error), []).append(_name(trial))
    return [{"trial": ", ".join(names), "reason": why} for why, names in by_reason.items()]


def _shorten(error: str | None) -> str:
    if not error:
        return "no reason recorded; see the trial's log.txt"
    text: str = redact(error.strip())
    # A traceback's last lines name the error.
    return text if len(text) <= MAX_ERROR_CHARS else f"... {text[-MAX_ERROR_CHARS:]}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _duration(train_s: float | None, eval_s: float | None) -> str:
    if train_s is None and eval_s is None:
        return "-"
    seconds = round((train_s or 0.0) + (eval_s or 0.0))
    minutes, seconds = divmod(seconds, SECONDS_PER_MINUTE)
    hours, minutes = divmod(minutes, MINUTES_PER_HOUR)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def _markdown(value: object) -> str:
    """Text that cannot become markup, or break out of a table cell, in Markdown."""
    text = " ".join(str(value).split())
    for character in "\\`*_[]|<>":
        text = text.replace(character, f"\\{character}")
    return text


@cache
def _templates() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    return environment
