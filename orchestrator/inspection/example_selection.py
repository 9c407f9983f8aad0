"""Select examples for `plw data show`: by index, id, length or text, or at random."""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.inspection.data_settings import DataSettings
from orchestrator.inspection.token_view import ExampleView, decode, view_examples
from trainers.data.examples import Example
from trainers.data.readers import iter_examples
from trainers.data.roles import UntruncatedExample
from trainers.data.template import Template
from trainers.data.template_source import utc_today, with_date
from trainers.data.tokenize import as_trained
from trainers.foundation.errors import InputError, Problem
from trainers.models.loading import load_tokenizer

_CHUNK = 1000  # examples per tokenizer call
_MAX_LISTED = 5  # ids in an error


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which examples are selected.

    By default, `number` examples from index `start`. At most one of the others is set: `ids`; the
    `number` longest; `num_random` examples drawn with `seed`; the first `number` from index `start`
    whose rendered text contains `search`, in upper or lower case.
    """

    number: int
    start: int = 0
    ids: tuple[str, ...] = ()
    is_longest: bool = False
    num_random: int | None = None
    seed: int = 0
    search: str | None = None


@dataclass(frozen=True)
class SelectedExamples:
    """Some of `num_examples` examples, with the settings that determine their tokens."""

    views: list[ExampleView]
    num_examples: int
    settings: DataSettings

    def to_json(self) -> dict[str, Any]:
        """Return the selection as JSON data."""
        data = self.settings.config.data
        return {
            "path": data.label,
            "template": data.template,
            "num_examples": self.num_examples,
            "weighting": self.settings.weighting,
            "examples": [view.model_dump(mode="json") for view in self.views],
        }


def select_examples(settings: DataSettings, selection: Selection) -> SelectedExamples:
    """Return views of the selected examples.

    Raises:
        InputError: the data, the model or the template does not exist or is invalid, or no example
            fits the selection.
    """
    config = settings.config
    tokenizer = load_tokenizer(config.model)
    data = with_date(config.data, tokenizer, utc_today())
    examples = as_trained(iter_examples(data), data)
    template = Template.for_data(data, tokenizer)
    indices = _select(examples, template, selection, data.label)
    views = view_examples(examples, indices, template, data, config.loss)
    return SelectedExamples(views, len(examples), settings)


def _select(
    examples: Sequence[Example], template: Template, selection: Selection, path: str
) -> list[int]:
    """Return the indices of the selected examples."""
    if selection.ids:
        return _find_ids(examples, selection.ids, path)
    if selection.num_random is not None:
        return draw(len(examples), selection.num_random, selection.seed)
    if selection.is_longest:
        lengths = ((whole.num_tokens, -index) for index, whole in _tokenize(examples, template))
        return [-negative for _, negative in heapq.nlargest(selection.number, lengths)]
    if selection.start >= len(examples):
        raise InputError(
            Problem(
                message=(f"--start must be below the number of examples, got {selection.start}"),
                where=path,
                fix=f"give a number from 0 to {len(examples) - 1}",
            )
        )
    if selection.search is not None:
        return _search(examples, template, selection, path)
    return list(range(len(examples)))[selection.start : selection.start + selection.number]


def draw(num_examples: int, number: int, seed: int) -> list[int]:
    """Return the sorted indices of `number` random examples, or of all if there are fewer."""
    return sorted(random.Random(seed).sample(range(num_examples), min(number, num_examples)))


def _find_ids(examples: Sequence[Example], ids: Sequence[str], path: str) -> list[int]:
    index_of = {example.id: index for index, example in enumerate(examples)}
    missing = [id for id in ids if id not in index_of]
    if missing:
        known = ", ".join(list(index_of)[:_MAX_LISTED])
        raise InputError(
            [
                Problem(
                    message=f"no example has the id {id}",
                    where=path,
                    fix=f"give an id such as {known}",
                )
                for id in missing
            ]
        )
    return [index_of[id] for id in ids]


def _search(
    examples: Sequence[Example], template: Template, selection: Selection, path: str
) -> list[int]:
    wanted = str(selection.search).casefold()
    found: list[int] = []
    for index, whole in _tokenize(examples, template, selection.start):
        ids = whole.prompt_ids + whole.completion_ids
        if wanted in decode(ids, template.tokenizer).casefold():
            found.append(index)
        if len(found) == selection.number:
            break
    if not found:
        raise InputError(
            Problem(
                message=f"no example contains {selection.search!r}",
                where=path,
                fix="search for another text; the template's text and its tokens count as well",
            )
        )
    return found


def _tokenize(
    examples: Sequence[Example], template: Template, start: int = 0
) -> Iterator[tuple[int, UntruncatedExample]]:
    """Yield index and tokens of each example from index `start`."""
    for first in range(start, len(examples), _CHUNK):
        chunk = template.tokenize(examples[first : first + _CHUNK])
        yield from enumerate(chunk, start=first)
