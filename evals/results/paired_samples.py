"""Read the samples of two scored models and pair those of the same item."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from evals.results.corpus_metrics import CORPUS_METRICS, CorpusStatistics, Item
from evals.results.evaluation import Sample
from evals.results.paired import PairedItems
from evals.results.scores import RENAMED_MEASURES, Score, ScoreCard
from trainers.data.roles import COMPLETION_ROLES
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import read_json
from trainers.foundation.jsonl import json_error_message, read_jsonl
from trainers.foundation.records import describe_fault

HELDOUT_LOSS = "heldout_completion_loss"
# The first of these fields of a document or sample is the category of an item.
_CATEGORY_FIELDS = ("category", "subject", "dataset", "type")
_SAMPLE_FIELDS = ("measure", "id", "prompt", "target", "output", "value")

Pair = tuple[Sample, Sample]


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """The scores and samples in a folder."""

    folder: Path
    card: ScoreCard
    samples: list[Sample]


@dataclass(frozen=True, kw_only=True)
class PairedBenchmark:
    """The items of one main score that both models answered, by measure.

    `weights` are those of the measures in the score. `num_unpaired` items are not in `pairs`.
    """

    score: Score
    pairs: dict[str, list[Pair]]
    weights: list[float]
    num_unpaired: int

    @property
    def all_pairs(self) -> list[Pair]:
        """Return the pairs of all measures."""
        return [pair for pairs in self.pairs.values() for pair in pairs]


def read_scored_model(path: Path) -> ScoredModel:
    """Return the scores for a folder of scores, a trial, or a model in the folder of a trial.

    Raises:
        InputError: there are no scores in the folder or in the one above it, or a file is invalid.
    """
    if not path.is_dir():
        raise InputError(
            Problem(
                message="folder does not exist",
                where=str(path),
                fix="give a folder with scores.json and samples.jsonl: a trial, or the -o of plw "
                "eval",
            )
        )
    for folder in (path, path.absolute().parent):
        scores, samples = folder / "scores.json", folder / "samples.jsonl"
        if scores.is_file() and samples.is_file():
            return ScoredModel(
                folder=folder.resolve(),
                card=_read_card(scores),
                samples=read_jsonl(samples, _checked_sample),
            )
    missing = [name for name in ("scores.json", "samples.jsonl") if not (path / name).is_file()]
    raise InputError(
        Problem(
            message=f"there are no scores: no {' and no '.join(missing)}",
            where=str(path),
            fix=_scoring_fix(path),
        )
    )


def _scoring_fix(path: Path) -> str:
    """Return the command that scores the model in `path`, with an output folder for it alone."""
    is_model = path.name == "model" and (path.parent / "train.json").is_file()
    trained = path.parent if is_model else path
    scores = shlex.quote(f"{trained}-scores")
    return (
        f"score it first: plw eval {shlex.quote(str(trained))} --config SPEC -o {scores}, where "
        "SPEC is a sweep spec with the held-out examples (or use --data FILE or --tasks NAMES), "
        f"then give {scores}"
    )


def pair_benchmarks(first: ScoredModel, second: ScoredModel) -> list[PairedBenchmark]:
    """Return the main scores that both models have, with their common items.

    Items are the same if measure, id, document and target are equal and both have a value. Scores
    without samples of their own, such as the losses of single roles, are left out.
    """
    samples = (_by_measure(first.samples), _by_measure(second.samples))
    second_names = second.card.by_name()
    found = []
    for score in first.card.scores:
        if score.name not in second_names or (score.group is None and score.name != HELDOUT_LOSS):
            continue
        weights = _measures_of(score, first.card, samples[0])
        pairs = {
            name: list(_pairs(samples[0][name], samples[1].get(name, {})))
            for name in weights
            if name in samples[0]
        }
        pairs = {name: of_measure for name, of_measure in pairs.items() if of_measure}
        if pairs:
            ids = [samples[0].get(name, {}).keys() | samples[1].get(name, {}).keys()
                   for name in weights]  # fmt: skip
            found.append(
                PairedBenchmark(
                    score=score,
                    pairs=pairs,
                    weights=[weights[name] or len(pairs[name]) for name in pairs],
                    num_unpaired=sum(map(len, ids)) - sum(map(len, pairs.values())),
                )
            )
    return found


def paired_items(score: Score, pairs: Sequence[Pair]) -> PairedItems:
    """Return the statistics from which `score` is computed, for the items of `pairs`."""
    metric = _corpus_metric(score)
    if metric is not None:
        corpus = CorpusStatistics(metric)
        return PairedItems(
            first=corpus.statistics([_corpus_item(metric, a) for a, _ in pairs]),
            second=corpus.statistics([_corpus_item(metric, b) for _, b in pairs]),
            score=corpus.scores,
        )
    count = _completion_loss if score.name == HELDOUT_LOSS else _value
    return PairedItems(
        first=np.array([count(a) for a, _ in pairs]),
        second=np.array([count(b) for _, b in pairs]),
        score=lambda totals: totals[:, 0] / totals[:, 1],
    )


def category_of(sample: Sample) -> str | None:
    """Return the category of an item, if its sample or document has one."""
    for fields in (sample, sample.get("doc") or {}):
        for name in _CATEGORY_FIELDS:
            if isinstance(fields.get(name), str):
                return str(fields[name])
    return None


def is_binary(pairs: Sequence[Pair]) -> bool:
    """Return whether every item is either right or wrong."""
    return all(sample["value"] in (0, 1) for pair in pairs for sample in pair)


def _read_card(path: Path) -> ScoreCard:
    try:
        return ScoreCard.model_validate(read_json(path))
    except ValidationError as error:
        message = f"not a file of scores: {describe_fault(error)}"
    except ValueError as error:
        message = json_error_message(error)
    raise InputError(Problem(message=message, where=str(path), fix="score the model again"))


def _checked_sample(row: Any) -> Sample:
    """Return a row of samples.jsonl, if it has all fields that every sample has."""
    sample: Sample = dict(row)
    missing = [name for name in _SAMPLE_FIELDS if name not in sample]
    if missing:
        raise ValueError(f"not a sample of plw eval: no field {', '.join(missing)}")
    sample["measure"] = RENAMED_MEASURES.get(sample["measure"], sample["measure"])
    return sample


def _by_measure(samples: Sequence[Sample]) -> dict[str, dict[str, Sample]]:
    found: dict[str, dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        found[sample["measure"]][str(sample["id"])] = sample
    return found


def measure_of(score: Score, measures: Iterable[str]) -> str | None:
    """Return the measure or group of tasks whose score this is; None if it is of none."""
    names = [name for name in measures if f"{score.name}.".startswith((f"{name}.", f"{name}_"))]
    return max(names, key=len, default=None)


def _measures_of(
    score: Score, card: ScoreCard, samples: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return the measures of a score with their weights; None weights by the number of items."""
    groups = card.signature.get("groups", {})
    name = measure_of(score, (*groups, *samples))
    if name is None:
        return {}
    if name not in groups:
        return {name: None}
    weight = None if groups[name].get("weight_by_size", True) else 1.0
    return dict.fromkeys(groups[name]["tasks"], weight)


def _pairs(first: Mapping[str, Sample], second: Mapping[str, Sample]) -> Iterator[Pair]:
    for id, one in first.items():
        other = second.get(id)
        if (
            other is not None
            and one.get("doc") == other.get("doc")
            and one.get("target") == other.get("target")
            and one.get("value") is not None
            and other.get("value") is not None
        ):
            yield one, other


def _corpus_metric(score: Score) -> str | None:
    if score.name == "heldout.chrf":
        return "chrf"
    return next((name for name in score.name.split(".")[1:] if name in CORPUS_METRICS), None)


def _corpus_item(metric: str, sample: Sample) -> Item:
    """Return the targets and the output of an item, as they were scored."""
    if "metrics" not in sample:
        return [sample["target"].strip()], sample["output"].strip()
    targets, output = sample["metrics"][metric]
    return [targets] if isinstance(targets, str) else targets, output


def _value(sample: Sample) -> tuple[float, float]:
    return float(sample["value"]), 1.0


def _completion_loss(sample: Sample) -> tuple[float, float]:
    roles = [role.name.lower() for role in COMPLETION_ROLES]
    return (
        sum(sample["loss_sum"][role] for role in roles),
        sum(sample["num_tokens"][role] for role in roles),
    )
