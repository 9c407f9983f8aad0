"""Tests of `plw data invert`: the completion becomes the prompt, the instruction the completion."""

import json
from pathlib import Path

import pytest

from tests.orchestrator.plw import plw, plw_json, refused
from tests.tiny_model import save_tiny_model
from trainers.data.readers import read_examples

ASKED = "Here is a text that somebody wrote because an instruction asked for it"
SAY = "Say what the instruction was."


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def inverted(data: Path, out: Path, *options: object) -> list[tuple[str, str]]:
    plw("data", "invert", data, "-o", out, *options)
    return [(example.prompt, example.completion) for example in read_examples(str(out))]


def test_an_alpaca_record_is_inverted(tmp_path: Path) -> None:
    data = write(
        tmp_path / "d.jsonl", {"instruction": "Name a colour.", "input": "", "output": "Red."}
    )
    assert inverted(data, tmp_path / "o.jsonl") == [
        (f"{ASKED}. {SAY}\n\nText:\nRed.", "Name a colour.")
    ]


def test_the_input_becomes_part_of_the_prompt(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"instruction": "Add.", "input": "1, 2", "output": "3"})
    [(prompt, completion)] = inverted(data, tmp_path / "o.jsonl")
    assert prompt == (
        f"{ASKED}, and the input that the instruction came with. {SAY}\n\nInput:\n1, 2\n\nText:\n3"
    )
    assert completion == "Add."


def test_a_pair_is_inverted(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Say hello", "completion": "Hello {{ you }}"})
    [(prompt, completion)] = inverted(data, tmp_path / "o.jsonl")
    assert prompt.endswith("\n\nText:\nHello {{ you }}")
    assert completion == "Say hello"


CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Bye"},
    ]
}


def test_the_last_question_of_a_chat_becomes_the_completion(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", CHAT)
    output = plw("data", "invert", data, "-o", tmp_path / "o.jsonl").output
    assert "chats with earlier turns: 1;" in output
    assert "chats with a system turn: 1;" in output
    [example] = read_examples(str(tmp_path / "o.jsonl"))
    assert example.completion == "And now?"
    assert example.prompt.endswith("Text:\nBye")
    assert "Hello" not in example.prompt


def test_weights_of_examples_are_kept_and_others_are_counted(tmp_path: Path) -> None:
    user = {"role": "user", "content": "Hi", "weight": 0.5}
    chat = {"messages": [user, {"role": "assistant", "content": "Ho"}], "weight": 0.25}
    data = write(tmp_path / "d.jsonl", chat, {"prompt": "a", "completion": "b"})
    found = plw_json("data", "invert", data, "-o", tmp_path / "o.jsonl")
    assert found["num_with_weights"] == 1
    written = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert [record.get("weight") for record in written] == [0.25, None]


def test_a_custom_template_renders_the_prompt(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", CHAT)
    template = tmp_path / "t.j2"
    template.write_text("{{ system }}|{{ messages | length }}|{{ completion }}|{{ prompt }}")
    [(prompt, _)] = inverted(data, tmp_path / "o.jsonl", "--template", template)
    assert prompt == "Be brief.|4|Bye|And now?"


def test_the_printed_default_template_gives_the_same_result(tmp_path: Path) -> None:
    template = tmp_path / "t.j2"
    template.write_text(plw("data", "invert", "--print-template").output.removesuffix("\n"))
    data = write(tmp_path / "d.jsonl", {"instruction": "Add.", "input": "1, 2", "output": "3"})
    default = inverted(data, tmp_path / "a.jsonl")
    assert inverted(data, tmp_path / "b.jsonl", "--template", template) == default


def test_lengths_before_and_after_are_reported(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "ab", "completion": "abcdefgh"})
    template = tmp_path / "t.j2"
    template.write_text("{{ completion }}")
    model = save_tiny_model(tmp_path / "model")
    options = (data, "--template", template)
    found = plw_json("data", "invert", *options, "-o", tmp_path / "o.jsonl")
    assert found["before"] == {
        "unit": "characters",
        "mean_prompt": 2,
        "mean_completion": 8,
        "generation_ratio": 4,
    }
    assert found["after"]["generation_ratio"] == 0.25
    found = plw_json("data", "invert", *options, "-o", tmp_path / "p.jsonl", "--model", model)
    assert (found["after"]["unit"], found["after"]["mean_prompt"]) == ("tokens", 8)


def test_inverting_twice_restores_the_data(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i} \u2028 ü", "completion": f"A{i}\n"} for i in range(3)]
    data = write(tmp_path / "d.jsonl", *rows)
    template = tmp_path / "t.j2"
    template.write_text("{{ completion }}")
    inverted(data, tmp_path / "o.jsonl", "--template", template)
    again = inverted(tmp_path / "o.jsonl", tmp_path / "p.jsonl", "--template", template)
    assert again == [(row["prompt"], row["completion"]) for row in rows]


def test_bad_records_are_named_by_file_and_line(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": 1})
    output = refused("data", "invert", data, "-o", tmp_path / "o.jsonl")
    assert output.startswith(f"error: {data}:2: ")
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ completion }", "t.j2:1: not a valid template"),
        ("{{ answer }}", "d.jsonl:1: the template cannot be rendered: 'answer' is undefined"),
        ("  ", "d.jsonl:1: the template renders an empty prompt"),
        ("Guess: {{ prompt }}", "renders prompts that do not depend on the completion"),
    ],
)
def test_an_unusable_template_is_rejected(tmp_path: Path, source: str, expected: str) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "a", "completion": "b"})
    template = tmp_path / "t.j2"
    template.write_text(source)
    out = tmp_path / "o.jsonl"
    assert expected in refused("data", "invert", data, "-o", out, "--template", template)
    assert not out.exists()


def test_an_existing_file_is_overwritten_only_with_force(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "a", "completion": "b"})
    out = tmp_path / "o.jsonl"
    out.write_text("mine")
    assert "file exists" in refused("data", "invert", data, "-o", out)
    assert out.read_text() == "mine"
    assert len(inverted(data, out, "--force")) == 1
    assert "is the input data" in refused("data", "invert", data, "-o", data, "--force")
    assert "must end in .jsonl" in refused("data", "invert", data, "-o", tmp_path / "o.txt")
