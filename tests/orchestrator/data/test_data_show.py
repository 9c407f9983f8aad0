"""`plw data show`: examples token by token, with roles and weights."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tokenizers import processors

from orchestrator.cli.main import main
from orchestrator.data.token_view import token_texts, view_examples
from tests.orchestrator.plw import plw, plw_json, refused
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.config import DataConfig, LossConfig, RoleWeights
from trainers.data.examples import Example, Message, pair


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_token_has_text_role_and_weight(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    found = plw_json("data", "show", data, "--model", model, "--template", "plain", "--plw", 0.1)
    [example] = found["examples"]
    assert example["id"] == "d.jsonl:1"
    assert [(t["text"], t["role"], t["weight"]) for t in example["tokens"]] == [
        ("H", "user", 0),  # nothing predicts the first token
        ("i", "user", 0.1),
        ("\n", "template", 0.1),
        ("\n", "template", 0.1),
        ("o", "completion", 1),
        ("k", "completion", 1),
        ("<eos>", "completion", 1),
    ]


def test_runs_are_told_apart_without_colour(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    output = plw("data", "show", data, "--model", model, "--template", "plain", "--plw", 0.1).output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "user 0.1 2 H│i" in lines
    assert "template 0.1 2 ⏎│⏎" in lines
    assert "completion 1 3 o│k│<eos>" in lines
    assert "\x1b" not in output


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_colours_can_be_switched_off_on_a_terminal(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    arguments = ["data", "show", str(data), "--model", str(model), "--template", "plain"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    green = "\x1b[1;32m"
    assert green in CliRunner().invoke(main, arguments).output
    if how == "variable":
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        arguments.append("--no-color")
    assert green not in CliRunner().invoke(main, arguments).output


def test_ids_have_a_line_for_each_token(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    output = plw("data", "show", data, "--model", model, "--template", "plain", "--ids").output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "6 1 completion 1 │<eos>│" in lines


def test_long_runs_are_abbreviated_unless_all_is_asked_for(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "abc" * 40, "completion": "ok"})
    options = ("data", "show", data, "--model", model, "--template", "plain")
    assert "72 more, see --full" in plw(*options).output
    assert "72 more, see --full" in plw(*options, "--ids").output
    whole = plw(*options, "--full").output
    assert "more, see" not in whole
    assert whole.count("│") > 120


def test_some_of_the_examples_are_shown(tmp_path: Path, model: Path) -> None:
    rows = [{"prompt": f"Q{i}", "completion": "ok"} for i in range(9)]
    data = write(tmp_path / "d.jsonl", *rows)
    options = ("data", "show", data, "--model", model, "--template", "plain")
    assert [e["id"] for e in plw_json(*options)["examples"]] == [f"d.jsonl:{i}" for i in (1, 2, 3)]
    found = plw_json(*options, "-n", 2, "--start", 8)
    assert [e["id"] for e in found["examples"]] == ["d.jsonl:9"]
    assert "give one of 0 to 8" in refused(*options, "--start", 9)


def test_a_spec_gives_model_data_template_and_weights(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    config = tmp_path / "sweep.yaml"
    config.write_text(
        f"model: {{path: {model}}}\ndata: {{path: {data}, template: plain}}\n"
        "loss: {role_weights: {template: 0.25}}\nschedule: {steps: 1}\n"
        "search: {space: {loss.prompt_loss_weight: [0, 0.5]}}\n"
    )
    found = plw_json("data", "show", "--config", config)
    weights = {token["role"]: token["weight"] for token in found["examples"][0]["tokens"]}
    assert weights == {"user": 0, "template": 0.25, "completion": 1}
    assert found["weighting"] == (
        "PLW 0 and loss.role_weights (the spec searches it: --plw shows another)"
    )
    found = plw_json("data", "show", "--config", config, "--plw", 0.5, "--template", "chat")
    assert found["template"] == "chat"
    weights = {token["role"]: token["weight"] for token in found["examples"][0]["tokens"]}
    assert weights == {"user": 0.5, "template": 0.25, "completion": 1}


def test_nothing_to_show_is_refused() -> None:
    assert refused("data", "show") == "error: nothing to show; give PATH, or a spec as --config"


def test_what_looks_wrong_is_said() -> None:
    data = DataConfig(path="d", template="plain", max_length=8)
    tokenizer = tiny_tokenizer()
    examples = [
        pair("a", prompt="Hi", completion="0123456789"),
        pair("b", prompt="Hi", completion="k"),
    ]
    cut, whole = view_examples(examples, data, LossConfig(), tokenizer)
    assert cut.warnings == [
        "7 tokens do not fit data.max_length 8: they are cut off",
        "the completion lost its end-of-sequence token, so nothing teaches where to stop",
        "no token of a user or system turn: the template shows none, or it was cut off",
    ]
    assert whole.warnings == []


@pytest.mark.parametrize(
    ("template", "warnings"),
    [
        (
            "<|start|>{{ prompt }}",
            ["two start tokens: the template writes one that the tokenizer adds as well"],
        ),
        ("{{ prompt }}", []),
    ],
)
def test_a_start_token_that_is_written_twice_is_said(
    tmp_path: Path, template: str, warnings: list[str]
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<|start|>"
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", tokenizer.bos_token_id)]
    )
    file = tmp_path / "own.jinja"
    file.write_text(template)
    data = DataConfig(path="d", template=str(file))
    [view] = view_examples([pair("a", prompt="Hi", completion="ok")], data, LossConfig(), tokenizer)
    assert view.warnings == warnings


def test_roles_of_a_chat_with_all_turns() -> None:
    turns = (
        Message(role="system", content="S"),
        Message(role="user", content="u"),
        Message(role="assistant", content="a"),
        Message(role="user", content="v"),
        Message(role="assistant", content="b"),
    )
    data = DataConfig(path="d", completion_turns="all")
    loss = LossConfig(prompt_loss_weight=0.5, role_weights=RoleWeights(system=0.0))
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    [view] = view_examples([Example(id="x", messages=turns)], data, loss, tokenizer)
    completion = "".join(token.text for token in view.tokens if token.role == "completion")
    assert completion == "a<|end|>b<|end|>"
    assert {token.weight for token in view.tokens if token.role == "system"} == {0}
    assert {token.weight for token in view.tokens if token.role == "user"} == {0.5}


@pytest.mark.parametrize("text", ["naïve café 😀 end", "日本語", "a\tb\r\n"])
def test_texts_back_to_back_are_what_the_model_reads(text: str) -> None:
    tokenizer = tiny_tokenizer()
    texts = token_texts(tokenizer(text)["input_ids"], tokenizer)
    assert "".join(texts) == text
    assert "\ufffd" not in "".join(texts)
