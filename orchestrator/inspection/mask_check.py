"""Compare our labels with the masks of other tools over a data set, for `plw data check`."""

import itertools
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from orchestrator.inspection.data_settings import DataSettings
from orchestrator.inspection.example_selection import draw
from orchestrator.inspection.mask_differences import Difference, Kind, find_differences
from orchestrator.inspection.reference_masks import ReferenceMask, find_references
from trainers.data.examples import Example
from trainers.data.readers import iter_examples
from trainers.data.template import Template
from trainers.data.template_source import utc_today, with_date
from trainers.data.tokenize import as_trained
from trainers.data_config import DataConfig
from trainers.models.loading import load_tokenizer

_CHUNK = 1000  # examples per tokenizer call

EXPLANATIONS: dict[tuple[Kind, bool], str] = {
    ("end token", True): "the other tool does not train on the token that ends the turn",
    (
        "end token",
        False,
    ): "a token after the turn, or one outside of the template's markers",
    ("white space", True): "the other tool leaves out white space around the answer",
    ("white space", False): "white space that the template writes around the answer",
    ("header", True): "text that the template writes before the answer and the model must write",
    ("header", False): "the opening of the turn, which at inference is part of the prompt",
    ("earlier turn", True): "the other tool trains on the last turn only",
    ("earlier turn", False): "earlier answers are prompt (data.completion_turns)",
    ("thinking", True): "the other tool does not train on the thinking",
    ("thinking", False): "the other tool's template keeps thinking that the model's removes",
    ("weight 0", False): "the data gives the turn weight 0, which the other tool does not read",
    ("truncated", False): "data.max_length truncates it; the other tool was given the whole text",
    ("split", True): "the other tool's tokens cross the boundary between prompt and completion",
}


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DifferenceCount(_Result):
    """All differences of one kind; `example_id` and `text` are of the first one.

    `explanation` is None for differences without one.
    """

    kind: Kind
    trained_by: str
    explanation: str | None
    num_tokens: int
    num_examples: int
    example_id: str
    text: str


class MaskComparison(_Result):
    """Our labels compared with those of `tool`, which has no mask for `num_without_mask`."""

    tool: str
    num_examples: int
    num_without_mask: int
    num_equal: int
    differences: list[DifferenceCount]


class MaskCheck(_Result):
    """The comparisons with all tools; `not_compared` says why others were not possible."""

    path: str
    template: str
    comparisons: list[MaskComparison]
    not_compared: list[str]

    @property
    def num_compared(self) -> int:
        """Return the number of compared examples, summed over the tools."""
        return sum(one.num_examples - one.num_without_mask for one in self.comparisons)

    @property
    def num_unexplained(self) -> int:
        """Return the number of examples with unexplained differences, summed over the tools."""
        return sum(
            count.num_examples
            for comparison in self.comparisons
            for count in comparison.differences
            if count.explanation is None
        )


def check_masks(settings: DataSettings, *, num_random: int | None, seed: int) -> MaskCheck:
    """Compare the labels of all examples, or of `num_random` drawn with `seed`.

    Raises:
        InputError: the data, the model or the template is invalid.
    """
    tokenizer = load_tokenizer(settings.config.model)
    data = with_date(settings.config.data, tokenizer, utc_today())
    examples = as_trained(iter_examples(data), data)
    if num_random is not None:
        examples = [examples[index] for index in draw(len(examples), num_random, seed)]
    template = Template.for_data(data, tokenizer)
    references, missing = find_references(template, examples[0])
    comparisons = [_compare(examples, template, reference, data) for reference in references]
    return MaskCheck(
        path=data.label, template=data.template, comparisons=comparisons, not_compared=missing
    )


def _compare(
    examples: Sequence[Example], template: Template, reference: ReferenceMask, data: DataConfig
) -> MaskComparison:
    counts: dict[tuple[Kind, bool], DifferenceCount] = {}
    num_equal = num_without_mask = 0
    for example_id, found in _differences(examples, template, reference, data):
        num_without_mask += found is None
        num_equal += found == []
        by_kind = itertools.groupby(
            sorted(found or [], key=lambda one: (one.kind, one.is_ours)),
            key=lambda one: (one.kind, one.is_ours),
        )
        for key, group in by_kind:
            counts[key] = _add(counts.get(key), example_id, list(group))
    return MaskComparison(
        tool=reference.tool,
        num_examples=len(examples),
        num_without_mask=num_without_mask,
        num_equal=num_equal,
        differences=list(counts.values()),
    )


def _differences(
    examples: Sequence[Example], template: Template, reference: ReferenceMask, data: DataConfig
) -> Iterator[tuple[str, list[Difference] | None]]:
    """Yield the differences of each example, None if the other tool has no mask for it."""
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        for example, whole, mask in zip(
            chunk, template.tokenize(chunk), reference.masks(chunk), strict=True
        ):
            if mask is None:
                yield example.id, None
                continue
            yield (
                example.id,
                find_differences(
                    example,
                    whole,
                    mask,
                    template,
                    data=data,
                    is_last_turn_only=reference.is_last_turn_only,
                ),
            )


def _add(
    count: DifferenceCount | None, example_id: str, found: Sequence[Difference]
) -> DifferenceCount:
    """Add one example's differences of one kind to the count of that kind."""
    first = found[0]
    if count is None:
        count = DifferenceCount(
            kind=first.kind,
            trained_by="plw" if first.is_ours else "other",
            explanation=EXPLANATIONS.get((first.kind, first.is_ours)),
            num_tokens=0,
            num_examples=0,
            example_id=example_id,
            text=first.text,
        )
    return count.model_copy(
        update={
            "num_tokens": count.num_tokens + sum(one.num_tokens for one in found),
            "num_examples": count.num_examples + 1,
        }
    )
