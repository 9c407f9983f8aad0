"""Overlap counts of scores and flags of samples."""

import json
from pathlib import Path

from evals.contamination.annotate import annotate_overlaps, copy_overlaps
from evals.results.evaluation import EvaluationResult, Sample
from evals.results.scores import Score
from trainers.data.examples import pair

TRAINING = [
    pair("t:1", prompt="Why is the sky blue?", completion="Light is scattered."),
    pair(
        "t:2",
        prompt="The city councilmen refused the demonstrators a permit because they",
        completion="feared violence.",
    ),
]


def benchmark(*samples: Sample) -> EvaluationResult:
    def score(name: str) -> Score:
        return Score(
            name=name, group="multiple_choice", value=0.5, standard_error=None, ci_low=None,
            ci_high=None, num_items=len(samples), higher_is_better=True, unit="share of items",
            interval_method="",
        )  # fmt: skip

    return EvaluationResult(
        scores=[score("quiz.acc")],
        secondary=[score("quiz.acc_norm")],
        samples=[{"measure": "quiz", "id": str(n)} | s for n, s in enumerate(samples)],
        signature={"tasks": {"quiz": {}}},
    )


def overlaps(result: EvaluationResult) -> list[bool]:
    (annotated,) = annotate_overlaps([result], [], TRAINING)
    counts = [score.num_overlapping for score in (*annotated.scores, *annotated.secondary)]
    flags = [sample["overlaps_training"] for sample in annotated.samples]
    assert counts == [sum(flags), sum(flags)]
    return flags


def test_words_that_all_prompts_of_a_benchmark_begin_or_end_with_are_ignored() -> None:
    found = overlaps(
        benchmark(
            {"prompt": "Question: Why is the sky blue?\nAnswer:", "target": "scattering"},
            {"prompt": "Question: Why is the sea salty?\nAnswer:", "target": "rivers"},
            {"prompt": "Question: Who is it?\nAnswer:", "target": ["me", "you"]},
        )
    )
    assert found == [True, False, False]


def test_the_source_document_is_compared_not_the_shots_and_the_template_around_it() -> None:
    shot = "Question: Why is the sky blue?\nAnswer: Light is scattered.\n\n"

    def sample(question: str, target: str) -> Sample:
        return {
            "prompt": f"<|user|>\n{shot}Question: {question}\nAnswer:\n\n<|assistant|>\n\n",
            "doc": {"id": "Q-7", "question": f" {question}", "facts": {"answers": [target, "no"]}},
            "target": target,
        }

    found = overlaps(
        benchmark(
            sample("Why is the sky blue?", "No idea."),
            sample("How deep is the sea, on the whole and by the map?", "4 km"),
        )
    )
    assert found == [True, False]


def test_the_sentence_is_compared_if_the_choices_are_filled_into_it() -> None:
    sentence = "The city councilmen refused the demonstrators a permit because _ feared violence."
    in_training = pair(
        "t:3", prompt="Complete.", completion=sentence.replace("_ feared", "feared it and")
    )
    doc = {"sentence": sentence, "option1": "the councilmen", "answer": "1"}
    prompt = sentence.replace("_", "the councilmen")
    choices = [{"context": prompt, "text": " x"}, {"context": "other", "text": " x"}]
    result = benchmark({"prompt": prompt, "doc": doc, "target": 0, "choices": choices})
    (annotated,) = annotate_overlaps([result], [], [in_training])
    assert [sample["overlaps_training"] for sample in annotated.samples] == [False]
    (annotated,) = annotate_overlaps(
        [result], [], [pair("t:4", prompt=f"{sentence} Who?", completion="They.")]
    )
    assert [sample["overlaps_training"] for sample in annotated.samples] == [True]


def test_a_group_counts_the_items_of_its_tasks() -> None:
    def score(name: str) -> Score:
        return benchmark().scores[0].model_copy(update={"name": name})

    def sample(measure: str, number: int, question: str) -> Sample:
        doc = {"question": question}
        return {"measure": measure, "id": str(number), "prompt": question, "target": "", "doc": doc}

    known = "Why is the sky blue?"
    result = EvaluationResult(
        scores=[score("all.acc")],
        secondary=[score("one.acc"), score("two.acc"), score("part.acc")],
        samples=[
            sample("one", 0, known), sample("one", 1, "What is it?"), sample("two", 0, known),
        ],
        signature={
            "tasks": {"one": {}, "two": {}},
            "groups": {"all": {"tasks": ["one", "two"]}, "part": {"tasks": ["two"]}},
        },
    )  # fmt: skip
    (annotated,) = annotate_overlaps([result], [], TRAINING)
    counts = [score.num_overlapping for score in (*annotated.scores, *annotated.secondary)]
    assert counts == [2, 1, 1, 1]


def test_a_target_that_is_an_index_is_compared_by_the_text_of_its_choice() -> None:
    choices = [{"text": " advocated violence"}, {"text": " feared violence."}]
    prompt = "The city councilmen refused the demonstrators a permit because they"
    found = overlaps(
        benchmark(
            {"prompt": prompt, "target": 1, "choices": choices},
            {"prompt": "Something else", "target": 0, "choices": choices},
        )
    )
    assert found == [True, False]


def test_items_that_are_scored_again_keep_their_overlaps(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    result = benchmark({"prompt": "a"}, {"prompt": "b"})
    lines = [
        {"measure": "quiz", "id": "0", "overlaps_training": True},
        {"measure": "quiz", "id": "1", "overlaps_training": False},
    ]
    assert copy_overlaps([result], path) == [result]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = copy_overlaps([result], path)
    assert [sample["overlaps_training"] for sample in found.samples] == [True, False]
    assert found.scores[0].num_overlapping == 1
    path.write_text(json.dumps(lines[0]) + "\n")
    assert copy_overlaps([result], path) == [result]
