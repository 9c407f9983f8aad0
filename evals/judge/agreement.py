"""Agreement of a judge with people, on PandaLM's pairs with three human verdicts each.

The gold verdict (candidate, reference or tie) is the majority of the three verdicts. A pair with
three different verdicts has no gold verdict and is excluded. The agreement between the people shows
how much agreement is possible.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from evals.judge.outputs_file import Record, read_rows
from evals.judge.verdicts import Pair, Verdict
from evals.results.intervals import Floats, bootstrap_sums, proportion
from trainers.foundation.errors import InputError, Problem

VERDICTS: tuple[Verdict, ...] = ("candidate", "reference", "tie")
VerdictPairs = Sequence[tuple[Verdict | None, Verdict | None]]
_ANNOTATORS = ("annotator1", "annotator2", "annotator3")
_VERDICT_BY_LABEL: dict[str, Verdict] = {
    "1": "candidate",
    "2": "reference",
    "0": "tie",
    "tie": "tie",
    "candidate": "candidate",
    "reference": "reference",
}
_VERDICT_FIELDS = ("verdict", "gpt_result", "pandalm_result", "result")
_DATA_FORMAT = (
    'a record is {"idx": ..., "instruction": ..., "input": ..., "response1": ..., "response2": ...,'
    ' "annotator1": 0 (tie), 1 or 2, "annotator2": ..., "annotator3": ...}'
)
_VERDICTS_FORMAT = 'a record is {"idx": ..., "verdict": 1, 2 or "Tie"}'


@dataclass(frozen=True, kw_only=True)
class HumanPair:
    """A pair with the verdicts of three people; response 1 is the candidate."""

    idx: str
    pair: Pair
    verdicts: tuple[Verdict, Verdict, Verdict]

    @property
    def majority(self) -> Verdict | None:
        """Return the verdict of at least two of the three people; None if all differ."""
        verdict, count = Counter(self.verdicts).most_common(1)[0]
        return verdict if count >= 2 else None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Accuracy and Cohen's kappa of two sets of verdicts, with 95% intervals."""

    accuracy: float
    accuracy_ci_low: float | None
    accuracy_ci_high: float | None
    kappa: float | None
    kappa_ci_low: float | None
    kappa_ci_high: float | None
    num_pairs: int


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Agreement of a judge with people.

    `judge` counts unparsable verdicts as wrong (for kappa, as a fourth category). `judge_readable`
    excludes these pairs. `judge_unparsable_as_tie` counts them as ties, as in PandaLM's published
    figures. `judge_person_*` are means over the three people, on the pairs with a parsable verdict.
    `person_person_*` are means over the three pairs of people, on all pairs of responses.
    """

    num_pairs: int
    num_without_majority: int
    num_unparsable: int
    judge: Agreement
    judge_readable: Agreement | None
    judge_unparsable_as_tie: Agreement
    judge_person_accuracy: float | None
    judge_person_kappa: float | None
    person_person_accuracy: float
    person_person_kappa: float | None
    confusion: dict[str, dict[str, int]]

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return asdict(self)


def read_human_pairs(path: str | Path) -> list[HumanPair]:
    """Return the pairs in a file in the format of PandaLM's testset-v1.json.

    Raises:
        InputError: the file or its records are invalid; the error gives each location.
    """
    pairs = []
    problems = []
    for index, (where, row) in enumerate(read_rows(Path(path), expected=_DATA_FORMAT)):
        texts = [_text(row.get(name)) for name in ("instruction", "response1", "response2")]
        labels = [_VERDICT_BY_LABEL.get(str(row.get(name)).strip().lower()) for name in _ANNOTATORS]
        if None in texts or None in labels:
            message = f"a text is missing, or a verdict is not 0, 1 or 2: {_labels(row)}"
            problems.append(Problem(message=message, where=where, fix=_DATA_FORMAT))
            continue
        one, two, three = (label for label in labels if label is not None)
        instruction, first, second = (text for text in texts if text is not None)
        record = Record(
            id=where, instruction=instruction, input=_text(row.get("input")) or "", output=None
        )
        idx = str(row.get("idx", index))
        pair = Pair(id=idx, instruction=record.task, candidate=first, reference=second)
        pairs.append(HumanPair(idx=idx, pair=pair, verdicts=(one, two, three)))
    if problems:
        raise InputError(problems[:20])
    return pairs


def read_verdicts(path: str | Path, pairs: Sequence[HumanPair]) -> dict[str, Verdict | None]:
    """Return a judge's verdict for each pair, by `idx`; None for values other than 1, 2 or Tie.

    Raises:
        InputError: the file is invalid, or lacks verdicts for some pairs.
    """
    found: dict[str, Verdict | None] = {}
    for index, (where, row) in enumerate(read_rows(Path(path), expected=_VERDICTS_FORMAT)):
        field = next((name for name in _VERDICT_FIELDS if name in row), None)
        if field is None:
            raise InputError(Problem(message="no verdict", where=where, fix=_VERDICTS_FORMAT))
        idx = str(row.get("idx", row.get("id", index)))
        found[idx] = _VERDICT_BY_LABEL.get(str(row[field]).strip().lower())
    missing = [item.idx for item in pairs if item.idx not in found]
    if missing:
        raise InputError(
            Problem(
                message=f"no verdict for {len(missing)} of {len(pairs)} pairs, the first is"
                f" {missing[0]}",
                where=str(path),
                fix="use the verdicts of one judge on all pairs of --data",
            )
        )
    return {item.idx: found[item.idx] for item in pairs}


def validate(
    pairs: Sequence[HumanPair], verdicts: Mapping[str, Verdict | None], *, seed: int
) -> Validation:
    """Compare the judge's `verdicts` (by idx) with those of people.

    Raises:
        InputError: no pair has a majority.
    """
    judged = [item for item in pairs if item.majority is not None]
    if not judged:
        raise InputError(
            Problem(message="no pair has a majority of verdicts", fix="use other pairs")
        )
    with_majority = [(item.majority, verdicts[item.idx]) for item in judged]
    parsable = [pair for pair in with_majority if pair[1] is not None]
    as_tie = [(majority, verdict or "tie") for majority, verdict in with_majority]
    confusion: dict[str, dict[str, int]] = {
        row: {str(column or "unparsable"): 0 for column in (*VERDICTS, None)} for row in VERDICTS
    }
    for majority, verdict in with_majority:
        assert majority is not None
        confusion[majority][verdict or "unparsable"] += 1
    known = [item for item in pairs if verdicts[item.idx] is not None]
    with_person = [
        _accuracy_and_kappa([(item.verdicts[k], verdicts[item.idx]) for item in known])
        for k in range(3)
        if known
    ]
    between_people = [
        _accuracy_and_kappa([(item.verdicts[j], item.verdicts[k]) for item in pairs])
        for j, k in combinations(range(3), 2)
    ]
    return Validation(
        num_pairs=len(pairs),
        num_without_majority=len(pairs) - len(judged),
        num_unparsable=sum(verdict is None for verdict in verdicts.values()),
        judge=compute_agreement(with_majority, seed),
        judge_readable=compute_agreement(parsable, seed) if parsable else None,
        judge_unparsable_as_tie=compute_agreement(as_tie, seed),
        judge_person_accuracy=_mean_of_known([accuracy for accuracy, _ in with_person]),
        judge_person_kappa=_mean_of_known([kappa for _, kappa in with_person]),
        person_person_accuracy=fmean(accuracy for accuracy, _ in between_people),
        person_person_kappa=_mean_of_known([kappa for _, kappa in between_people]),
        confusion=confusion,
    )


def compute_agreement(verdict_pairs: VerdictPairs, seed: int) -> Agreement:
    """Return accuracy (Wilson's interval) and Cohen's kappa (seeded bootstrap interval)."""
    accuracy = proportion([one == other for one, other in verdict_pairs])
    _, kappa = _accuracy_and_kappa(verdict_pairs)
    low, high = _interval(bootstrap_sums(_cells(verdict_pairs), _kappas, seed))
    return Agreement(
        accuracy=accuracy.value,
        accuracy_ci_low=accuracy.ci_low,
        accuracy_ci_high=accuracy.ci_high,
        kappa=kappa,
        kappa_ci_low=low,
        kappa_ci_high=high,
        num_pairs=len(verdict_pairs),
    )


def _accuracy_and_kappa(verdict_pairs: VerdictPairs) -> tuple[float, float | None]:
    accuracy = fmean(one == other for one, other in verdict_pairs)
    kappa = float(_kappas(_cells(verdict_pairs).sum(axis=0, keepdims=True))[0])
    return accuracy, None if np.isnan(kappa) else kappa


def _cells(verdict_pairs: VerdictPairs) -> Floats:
    """Return the one-hot cell (N, C) of each pair in the square table of verdicts."""
    categories = (*VERDICTS, None)
    cells = np.zeros((len(verdict_pairs), len(categories) ** 2))
    for row, (one, other) in zip(cells, verdict_pairs, strict=True):
        row[categories.index(one) * len(categories) + categories.index(other)] = 1
    return cells


def _kappas(totals_MC: Floats) -> Floats:
    """Return Cohen's kappa (M,) of M square tables (M, C); nan if both raters are constant.

    Source: Cohen 1960, A coefficient of agreement for nominal scales: (po - pe) / (1 - pe).
    """
    num_categories = int(np.sqrt(totals_MC.shape[1]))
    tables = totals_MC.reshape(-1, num_categories, num_categories)
    tables = tables / tables.sum(axis=(1, 2), keepdims=True)
    observed = np.trace(tables, axis1=1, axis2=2)
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappas: Floats = np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
    return kappas


def _interval(values: Floats) -> tuple[float | None, float | None]:
    known = values[~np.isnan(values)]
    if not len(known) or float(np.ptp(known)) == 0:
        return None, None
    low, high = np.quantile(known, [0.025, 0.975]).tolist()
    return low, high


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _text(value: Any) -> str | None:
    # One response in PandaLM's file is the value True without quotes.
    return str(value) if isinstance(value, str | bool | int | float) else None


def _labels(row: Mapping[str, Any]) -> str:
    return str({name: row.get(name) for name in ("idx", *_ANNOTATORS)})
