"""Add the overlap with the training data to scores and samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from evals.contamination.ngrams import ItemText, find_overlaps, item_text
from evals.results.evaluation import EvaluationResult, Sample
from evals.results.scores import Score
from trainers.data.examples import Example
from trainers.foundation.jsonl import read_jsonl

Key = tuple[str, str]


def annotate_overlaps(
    results: Sequence[EvaluationResult], examples: Sequence[Example], training: Sequence[Example]
) -> list[EvaluationResult]:
    """Return `results` with the number of overlapping items per score and a flag per sample.

    If a sample's `id` belongs to one of the held-out `examples`, the text of that example is
    compared. For a benchmark's sample, the texts of its source document `doc` that its prompt
    contains, and its target, are compared: neither few-shot examples nor a template count. Without
    a document, the prompt is compared except for the words that all prompts begin or end with.
    Samples from training data remain unchanged.
    """
    heldout_texts = {example.id: item_text(example) for example in examples}
    items: dict[Key, ItemText] = {}
    for result in results:
        if all(sample["id"] in heldout_texts for sample in result.samples):
            items |= {_key(sample): heldout_texts[sample["id"]] for sample in result.samples}
        elif not _has_training_samples(result):
            items |= _benchmark_texts(result)
    overlaps = dict(zip(items, find_overlaps(list(items.values()), training), strict=True))
    return [
        result if _has_training_samples(result) else _annotate(result, overlaps)
        for result in results
    ]


def copy_overlaps(
    results: Sequence[EvaluationResult], samples_path: Path
) -> list[EvaluationResult]:
    """Return `results` with the overlaps of the same items in an earlier samples.jsonl."""
    known: dict[Key, bool] = {}
    if samples_path.exists():
        for sample in read_jsonl(samples_path, dict):
            if "overlaps_training" in sample:
                known[_key(sample)] = sample["overlaps_training"]
    return [
        _annotate(result, known)
        if all(_key(sample) in known for sample in result.samples)
        else result
        for result in results
    ]


def _has_training_samples(result: EvaluationResult) -> bool:
    return any(sample.get("source") == "training" for sample in result.samples)


def _annotate(result: EvaluationResult, overlaps: Mapping[Key, bool]) -> EvaluationResult:
    samples = [{**sample, "overlaps_training": overlaps[_key(sample)]} for sample in result.samples]
    overlapping = {_key(sample) for sample in samples if sample["overlaps_training"]}

    def with_count(scores: Sequence[Score]) -> list[Score]:
        counted = []
        for score in scores:
            measures = _measures_of(score, result)
            count = sum(measure in measures for measure, _ in overlapping)
            counted.append(score.model_copy(update={"num_overlapping": count}))
        return counted

    return replace(
        result,
        samples=samples,
        scores=with_count(result.scores),
        secondary=with_count(result.secondary),
    )


def _measures_of(score: Score, result: EvaluationResult) -> set[str]:
    """Return the measures of the samples that a score is computed from."""
    tasks = {name: [name] for name in result.signature.get("tasks", {})}
    groups = {name: group["tasks"] for name, group in result.signature.get("groups", {}).items()}
    owners = [name for name in {**tasks, **groups} if score.name.startswith(f"{name}.")]
    if not owners:
        return {sample["measure"] for sample in result.samples}
    return set({**tasks, **groups}[max(owners, key=len)])


def _key(sample: Sample) -> Key:
    return sample["measure"], str(sample["id"])


def _benchmark_texts(result: EvaluationResult) -> dict[Key, ItemText]:
    texts = {_key(sample): _document_text(sample) for sample in result.samples if "doc" in sample}
    others = [sample for sample in result.samples if "doc" not in sample]
    prompts = [str(sample["prompt"]).split() for sample in others]
    if len(prompts) > 1:
        num_first = _num_shared_words(prompts)
        num_last = _num_shared_words([prompt[num_first:][::-1] for prompt in prompts])
        prompts = [prompt[num_first : len(prompt) - num_last] for prompt in prompts]
    return texts | {
        _key(sample): ItemText(prompt=" ".join(prompt), completion=_target(sample))
        for sample, prompt in zip(others, prompts, strict=True)
    }


def _document_text(sample: Sample) -> ItemText:
    """Return the texts of a source document that the prompt contains, and the target.

    A text that is part of another one is left out. The longest text represents an item whose prompt
    contains none, or whose choices have different prompts: WinoGrande fills them into a sentence.
    """
    texts = [text for text in map(_one_line, _texts(sample["doc"])) if text]
    prompt = _one_line(str(sample["prompt"]))
    shown = [text for text in dict.fromkeys(texts) if text in prompt]
    contexts = {choice.get("context") for choice in sample.get("choices") or []}
    if not shown or len(contexts) > 1:
        return ItemText(prompt=max(texts, key=len, default=""), completion="")
    whole = [text for text in shown if not any(text in other for other in shown if other != text)]
    return ItemText(prompt="\n".join(whole), completion=_target(sample))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a document, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts(item)


def _num_shared_words(texts: Sequence[Sequence[str]]) -> int:
    """Return the number of words in the longest common beginning of `texts`."""
    columns = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _target(sample: Sample) -> str:
    """Return the correct answer; if the target is the index of a choice, return its text."""
    target, choices = sample["target"], sample.get("choices") or []
    if isinstance(target, list):
        return " ".join(map(str, target))
    index = str(target)
    if index.isdigit() and int(index) < len(choices):
        return str(choices[int(index)].get("text", ""))
    return "" if target is None else str(target)
