"""How far a judge agrees with people: PandaLM's pairs with three human verdicts each.

The yardstick is the majority of the three: ties are one of its three verdicts (1, 2, Tie), and a
pair that all three see differently has none and is left out. Each person against each other
person shows what agreement can be asked for at all.
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
from evals.results.intervals import Floats, resampled_sums, share
from trainers.foundation.errors import InputError, Problem

VERDICTS: tuple[Verdict, ...] = ("candidate", "reference", "tie")
_ANNOTATORS = ("annotator1", "annotator2", "annotator3")
_OF_LABEL: dict[str, Verdict] = {
    "1": "candidate",
    "2": "reference",
    "0": "tie",
    "tie": "tie",
    "candidate": "candidate",
    "reference": "reference",
}
_VERDICT_FIELDS = ("verdict", "gpt_result", "pandalm_result", "result")
_DATA_FORM = (
    'a record is {"idx": ..., "instruction": ..., "input": ..., "response1": ..., "response2": ...,'
    ' "annotator1": 0 (tie), 1 or 2, "annotator2": ..., "annotator3": ...}'
)
_VERDICTS_FORM = 'a record is {"idx": ..., "verdict": 1, 2 or "Tie"}'


@dataclass(frozen=True, kw_only=True)
class HumanPair:
    """A pair, in which response 1 is the candidate, with the verdicts of three people."""

    idx: str
    pair: Pair
    verdicts: tuple[Verdict, Verdict, Verdict]

    @property
    def majority(self) -> Verdict | None:
        """What two of the three say; None where all differ."""
        verdict, count = Counter(self.verdicts).most_common(1)[0]
        return verdict if count >= 2 else None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often two sets of verdicts agree, and Cohen's kappa: 1 for always, 0 for by chance."""

    accuracy: float
    accuracy_ci_low: float | None
    accuracy_ci_high: float | None
    kappa: float | None
    kappa_ci_low: float | None
    kappa_ci_high: float | None
    num_pairs: int


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A judge against people.

    `judge` counts a pair without a readable verdict as wrong (for kappa, as a verdict of its
    own); `judge_readable` leaves such pairs out; `judge_unparsable_as_tie` takes them for ties,
    as PandaLM's published figures do. `judge_person` and `person_person` are means over the three
    people and over their three pairs, on all pairs with a readable verdict, or on all.
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
        """All of it."""
        return asdict(self)


def read_human_pairs(path: str | Path) -> list[HumanPair]:
    """The pairs of a file laid out as PandaLM's testset-v1.json.

    Raises:
        InputError: the file or records of it are not of that form; each with its place.
    """
    pairs = []
    problems = []
    for index, (where, row) in enumerate(read_rows(Path(path), form=_DATA_FORM)):
        texts = [_text(row.get(name)) for name in ("instruction", "response1", "response2")]
        labels = [_OF_LABEL.get(str(row.get(name)).strip().lower()) for name in _ANNOTATORS]
        if None in texts or None in labels:
            message = f"a text is missing or a verdict is none of 0, 1 and 2: {_shown(row)}"
            problems.append(Problem(message=message, where=where, fix=_DATA_FORM))
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
    """A judge's verdict for each pair by its idx; None for what is neither 1, 2 nor Tie.

    Raises:
        InputError: the file is not of that form, or lacks pairs.
    """
    found: dict[str, Verdict | None] = {}
    for index, (where, row) in enumerate(read_rows(Path(path), form=_VERDICTS_FORM)):
        field = next((name for name in _VERDICT_FIELDS if name in row), None)
        if field is None:
            raise InputError(Problem(message="no verdict", where=where, fix=_VERDICTS_FORM))
        idx = str(row.get("idx", row.get("id", index)))
        found[idx] = _OF_LABEL.get(str(row[field]).strip().lower())
    missing = [item.idx for item in pairs if item.idx not in found]
    if missing:
        raise InputError(
            Problem(
                message=f"no verdict for {len(missing)} of {len(pairs)} pairs, the first is"
                f" {missing[0]}",
                where=str(path),
                fix="give the verdicts of one judge on all pairs of --data",
            )
        )
    return {item.idx: found[item.idx] for item in pairs}


def validate(
    pairs: Sequence[HumanPair], verdicts: Mapping[str, Verdict | None], *, seed: int
) -> Validation:
    """The judge's `verdicts` (by idx) against the people's.

    Raises:
        InputError: no pair has a majority.
    """
    judged = [item for item in pairs if item.majority is not None]
    if not judged:
        raise InputError(
            Problem(message="no pair has a majority of verdicts", fix="give other pairs")
        )
    said = [(item.majority, verdicts[item.idx]) for item in judged]
    readable = [item for item in pairs if verdicts[item.idx] is not None]
    confusion: dict[str, dict[str, int]] = {
        row: {str(column or "unparsable"): 0 for column in (*VERDICTS, None)} for row in VERDICTS
    }
    for majority, verdict in said:
        assert majority is not None
        confusion[majority][verdict or "unparsable"] += 1
    with_judge = [
        _plain([item.verdicts[k] for item in readable], [verdicts[i.idx] for i in readable])
        for k in range(3)
        if readable
    ]
    between = [
        _plain([item.verdicts[j] for item in pairs], [item.verdicts[k] for item in pairs])
        for j, k in combinations(range(3), 2)
    ]
    as_read = [(majority, verdict) for majority, verdict in said if verdict is not None]
    return Validation(
        num_pairs=len(pairs),
        num_without_majority=len(pairs) - len(judged),
        num_unparsable=sum(verdict is None for verdict in verdicts.values()),
        judge=agreement(said, seed),
        judge_readable=agreement(as_read, seed) if as_read else None,
        judge_unparsable_as_tie=agreement([(m, v or "tie") for m, v in said], seed),
        judge_person_accuracy=_mean([accuracy for accuracy, _ in with_judge]),
        judge_person_kappa=_mean([kappa for _, kappa in with_judge]),
        person_person_accuracy=fmean(accuracy for accuracy, _ in between),
        person_person_kappa=_mean([kappa for _, kappa in between]),
        confusion=confusion,
    )


def agreement(said: Sequence[tuple[Verdict | None, Verdict | None]], seed: int) -> Agreement:
    """Accuracy with Wilson's 95% interval and Cohen's kappa with a seeded bootstrap's."""
    kinds = (*VERDICTS, None)
    cells = np.zeros((len(said), len(kinds) ** 2))
    for row, (one, other) in zip(cells, said, strict=True):
        row[kinds.index(one) * len(kinds) + kinds.index(other)] = 1
    accuracy = share([one == other for one, other in said])
    kappa = float(_kappas(cells.sum(axis=0, keepdims=True))[0])
    low, high = _interval(resampled_sums(cells, _kappas, seed))
    return Agreement(
        accuracy=accuracy.value,
        accuracy_ci_low=accuracy.ci_low,
        accuracy_ci_high=accuracy.ci_high,
        kappa=None if np.isnan(kappa) else kappa,
        kappa_ci_low=low,
        kappa_ci_high=high,
        num_pairs=len(said),
    )


def _kappas(totals_MC: Floats) -> Floats:
    """Cohen's kappa (M,) of counts by cell of a square table (M, C); nan where chance explains all.

    Source: Cohen 1960, A coefficient of agreement for nominal scales: (po - pe) / (1 - pe).
    """
    kinds = int(np.sqrt(totals_MC.shape[1]))
    tables = totals_MC.reshape(-1, kinds, kinds)
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


def _plain(
    one: Sequence[Verdict | None], other: Sequence[Verdict | None]
) -> tuple[float, float | None]:
    """Accuracy and kappa alone."""
    kinds = len(VERDICTS)
    table = np.zeros((1, kinds**2))
    for left, right in zip(one, other, strict=True):
        assert left is not None
        assert right is not None
        table[0, VERDICTS.index(left) * kinds + VERDICTS.index(right)] += 1
    accuracy = float(np.trace(table.reshape(kinds, kinds)) / table.sum())
    kappa = float(_kappas(table)[0])
    return accuracy, None if np.isnan(kappa) else kappa


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _text(value: Any) -> str | None:
    # A response such as True stands in PandaLM's own file without its quotes.
    return str(value) if isinstance(value, str | bool | int | float) else None


def _shown(row: Mapping[str, Any]) -> str:
    return str({name: row.get(name) for name in ("idx", *_ANNOTATORS)})
