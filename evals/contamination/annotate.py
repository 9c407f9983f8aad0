"""How many items of each measure overlap the training data, said with its scores and samples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from evals.contamination.ngrams import ItemText, find_overlaps, item_text
from evals.results.measurement import Measured, Sample
from evals.results.scores import Score
from trainers.data.examples import Example

Key = tuple[str, str]


def with_overlaps(
    measured: Sequence[Measured], examples: Sequence[Example], training: Sequence[Example]
) -> list[Measured]:
    """`measured`, its scores with how many of their items overlap, its samples with which.

    A sample whose `id` is that of one of the held-out `examples` is taken for it. Of benchmarks
    prompt and target are compared, without examples shown before the item and without what all
    prompts of the benchmark begin and end with. Samples made from training data are left as they
    are.
    """
    own = {example.id: item_text(example) for example in examples}
    items: dict[Key, ItemText] = {}
    for part in measured:
        if all(sample["id"] in own for sample in part.samples):
            items |= {_key(sample): own[sample["id"]] for sample in part.samples}
        elif not _is_of_training(part):
            items |= _texts_of_benchmark(part)
    found = dict(zip(items, find_overlaps(list(items.values()), training), strict=True))
    return [part if _is_of_training(part) else _marked(part, found) for part in measured]


def with_known_overlaps(measured: Sequence[Measured], samples_path: Path) -> list[Measured]:
    """`measured`, marked as the samples of the same items in an earlier samples.jsonl are."""
    known: dict[Key, bool] = {}
    if samples_path.exists():
        for line in samples_path.read_text(encoding="utf-8").split("\n"):
            sample: Sample = json.loads(line) if line else {}
            if "overlaps_training" in sample:
                known[_key(sample)] = sample["overlaps_training"]
    return [
        _marked(part, known) if all(_key(sample) in known for sample in part.samples) else part
        for part in measured
    ]


def _is_of_training(part: Measured) -> bool:
    return any(sample.get("source") == "training" for sample in part.samples)


def _marked(part: Measured, found: Mapping[Key, bool]) -> Measured:
    samples = [{**sample, "overlaps_training": found[_key(sample)]} for sample in part.samples]
    num_overlapping = sum({_key(s): s["overlaps_training"] for s in samples}.values())

    def counted(scores: Sequence[Score]) -> list[Score]:
        update = {"num_overlapping": num_overlapping}
        return [score.model_copy(update=update) for score in scores]

    return replace(
        part, samples=samples, scores=counted(part.scores), secondary=counted(part.secondary)
    )


def _key(sample: Sample) -> Key:
    return sample["measure"], str(sample["id"])


def _texts_of_benchmark(part: Measured) -> dict[Key, ItemText]:
    shots = part.signature.get("tasks", {})
    prompts = []
    for sample in part.samples:
        prompt = str(sample["prompt"])
        if shots.get(sample["measure"], {}).get("num_fewshot"):
            prompt = prompt.rpartition("\n\n")[2]
        prompts.append(prompt.split())
    if len(prompts) > 1:
        first = _num_common(prompts)
        last = _num_common([prompt[first:][::-1] for prompt in prompts])
        prompts = [prompt[first : len(prompt) - last] for prompt in prompts]
    return {
        _key(sample): ItemText(prompt=" ".join(prompt), completion=_target(sample))
        for sample, prompt in zip(part.samples, prompts, strict=True)
    }


def _num_common(texts: Sequence[Sequence[str]]) -> int:
    """How many words all `texts` begin with."""
    return sum(1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*texts, strict=False)))


def _target(sample: Sample) -> str:
    """The right answer; of a choice that is known by its place alone, its text."""
    target, choices = sample["target"], sample.get("choices") or []
    if isinstance(target, list):
        return " ".join(map(str, target))
    place = str(target)
    if place.isdigit() and int(place) < len(choices):
        return str(choices[int(place)].get("text", ""))
    return "" if target is None else str(target)
