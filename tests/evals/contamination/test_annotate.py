import json
from pathlib import Path

from evals.contamination.annotate import with_known_overlaps, with_overlaps
from evals.results.measurement import Measured, Sample
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


def benchmark(*samples: Sample, num_fewshot: int = 0) -> Measured:
    def score(name: str) -> Score:
        return Score(
            name=name, group="multiple_choice", value=0.5, standard_error=None, ci_low=None,
            ci_high=None, num_items=len(samples), higher_is_better=True, unit="share of items",
            interval_method="",
        )  # fmt: skip

    return Measured(
        scores=[score("quiz.acc")],
        secondary=[score("quiz.acc_norm")],
        samples=[{"measure": "quiz", "id": str(n)} | s for n, s in enumerate(samples)],
        signature={"tasks": {"quiz": {"num_fewshot": num_fewshot}}},
    )


def marks(measured: Measured) -> list[bool]:
    (found,) = with_overlaps([measured], [], TRAINING)
    counts = [score.num_overlapping for score in (*found.scores, *found.secondary)]
    own = [sample["overlaps_training"] for sample in found.samples]
    assert counts == [sum(own), sum(own)]
    return own


def test_what_all_prompts_of_a_benchmark_begin_and_end_with_is_no_part_of_the_item() -> None:
    found = marks(
        benchmark(
            {"prompt": "Question: Why is the sky blue?\nAnswer:", "target": "scattering"},
            {"prompt": "Question: Why is the sea salty?\nAnswer:", "target": "rivers"},
            {"prompt": "Question: Who is it?\nAnswer:", "target": ["me", "you"]},
        )
    )
    assert found == [True, False, False]


def test_solved_examples_before_an_item_are_no_part_of_it() -> None:
    shots = "Why is the sky blue?\nLight is scattered.\n\n"
    samples = [
        {"prompt": f"{shots}How deep is the sea, on the whole and by the map?", "target": "4 km"},
        {"prompt": "Other shots.\n\nWhere do all the rivers end?", "target": "there"},
    ]
    assert marks(benchmark(*samples, num_fewshot=1)) == [False, False]


def test_a_choice_known_by_its_place_is_compared_by_its_text() -> None:
    choices = [{"text": " advocated violence"}, {"text": " feared violence."}]
    prompt = "The city councilmen refused the demonstrators a permit because they"
    found = marks(
        benchmark(
            {"prompt": prompt, "target": 1, "choices": choices},
            {"prompt": "Something else", "target": 0, "choices": choices},
        )
    )
    assert found == [True, False]


def test_items_that_are_scored_again_keep_their_marks(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    measured = benchmark({"prompt": "a"}, {"prompt": "b"})
    lines = [
        {"measure": "quiz", "id": "0", "overlaps_training": True},
        {"measure": "quiz", "id": "1", "overlaps_training": False},
    ]
    assert with_known_overlaps([measured], path) == [measured]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = with_known_overlaps([measured], path)
    assert [sample["overlaps_training"] for sample in found.samples] == [True, False]
    assert found.scores[0].num_overlapping == 1
    path.write_text(json.dumps(lines[0]) + "\n")
    assert with_known_overlaps([measured], path) == [measured]
