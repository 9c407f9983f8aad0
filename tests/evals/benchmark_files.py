"""Write a small evals.data_root: a few items for each benchmark of the paper."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn"]
THINGS = ["a red apple", "two old books", "the tall tree", "some salt", "a long rope", "ice"]


def _arc(n: int) -> dict[str, Any]:
    labels = ["A", "B", "C", "D"][: 3 + n % 2]
    return {
        "id": f"q{n}",
        "question": f"Which of these would {NAMES[n % 6]} need to tie a boat?",
        "choices": {"text": [THINGS[(n + k) % 6] for k in range(len(labels))], "label": labels},
        "answerKey": labels[n % len(labels)],
    }


def _piqa(n: int) -> dict[str, Any]:
    return {
        "goal": f"How does {NAMES[n % 6]} keep food cold?",
        "sol1": f"Put {THINGS[n % 6]} on it.",
        "sol2": f"Leave it in the sun beside {THINGS[(n + 1) % 6]} all day.",
        "label": n % 2,
    }


def _winogrande(n: int) -> dict[str, Any]:
    start = "_ was" if n % 4 == 0 else f"{NAMES[n % 6]} met {NAMES[(n + 1) % 6]} and then _ was"
    return {
        "sentence": f"{start} happy to share {THINGS[n % 6]}.",
        "option1": NAMES[n % 6],
        "option2": NAMES[(n + 1) % 6],
        "answer": str(n % 2 + 1),
    }


def _truthful_choice(n: int) -> dict[str, Any]:
    choices = [f"Nothing happens to {thing}." for thing in THINGS[: 3 + n % 3]]
    targets = {"choices": choices, "labels": [1, n % 2, *[0] * (len(choices) - 2)]}
    single = {"choices": choices, "labels": [1, *[0] * (len(choices) - 1)]}
    return {
        "question": f"What happens if {NAMES[n % 6]} eats {THINGS[n % 6]}?",
        "mc1_targets": single,
        "mc2_targets": targets,
    }


def _truthful_generation(n: int) -> dict[str, Any]:
    return {
        "question": f"What happens if {NAMES[n % 6]} eats {THINGS[n % 6]}?",
        "best_answer": "Nothing happens",
        "correct_answers": ["Nothing happens", f"{NAMES[n % 6]} eats"],
        "incorrect_answers": ["The sun sets", "A storm comes"],
    }


def _translation(foreign: str) -> Any:
    return lambda n: {
        "translation": {
            "en": f"{NAMES[n % 6]} has {THINGS[n % 6]}.",
            foreign: f"{NAMES[n % 6]} {foreign} {THINGS[(n + 1) % 6]}, {foreign}.",
        }
    }


FILES = {
    "arc_challenge/test.jsonl": _arc,
    "piqa/validation.jsonl": _piqa,
    "winogrande/validation.jsonl": _winogrande,
    "truthfulqa/multiple_choice_v1.jsonl": _truthful_choice,
    "truthfulqa/generation_v1.jsonl": _truthful_generation,
    "wmt/wmt14-fr-en.test.jsonl": _translation("fr"),
    "wmt/wmt16-de-en.test.jsonl": _translation("de"),
    "wmt/wmt16-ro-en.test.jsonl": _translation("ro"),
}


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """Write rows to `path`, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_data_root(folder: Path, num_items: int = 6) -> Path:
    """Write all files of `FILES` below `folder`."""
    for name, row in FILES.items():
        write_lines(folder / name, [row(n) for n in range(num_items)])
    return folder
