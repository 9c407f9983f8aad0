"""Tests of `plw data show`: examples token by token, with roles and weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from orchestrator.cli.main import main
from orchestrator.cli.token_output import _COLOURS
from orchestrator.inspection.token_view import ExampleView, token_texts, view_examples
from tests.orchestrator.plw import plw, plw_json, refused
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.examples import Example, Message, pair
from trainers.data.roles import Role
from trainers.data.template import Template
from trainers.data_config import DataConfig
from trainers.loss_config import LossConfig, RoleWeights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def views_of(
    examples: list[Example],
    data: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
    loss: LossConfig | None = None,
) -> list[ExampleView]:
    template = Template(data.template, tokenizer, data.completion_turns)
    return view_examples(examples, range(len(examples)), template, data, loss or LossConfig())


def test_each_token_has_text_role_and_weight(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    found = plw_json("data", "show", data, "--model", model, "--template", "plain", "--plw", 0.1)
    [example] = found["examples"]
    assert example["id"] == "d.jsonl:1"
    assert [(t["text"], t["role"], t["weight"]) for t in example["tokens"]] == [
        ("H", "user", 0),  # the first token is not predicted
        ("i", "user", 0.1),
        ("\n", "template", 0.1),
        ("\n", "template", 0.1),
        ("o", "completion", 1),
        ("k", "completion", 1),
        ("<eos>", "completion", 1),
    ]


def test_runs_are_readable_without_colours(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    output = plw("data", "show", data, "--model", model, "--template", "plain", "--plw", 0.1).output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "user 0.1 2 H│i" in lines
    assert "template 0.1 2 ⏎│⏎" in lines
    assert "completion 1 3 o│k│<eos>" in lines
    assert "\x1b" not in output


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_colours_can_be_turned_off_on_a_terminal(
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


def test_ids_prints_one_line_per_token(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    output = plw("data", "show", data, "--model", model, "--template", "plain", "--ids").output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "6 1 completion 1 │<eos>│" in lines


def test_long_runs_are_shortened_without_full(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "abc" * 40, "completion": "ok"})
    options = ("data", "show", data, "--model", model, "--template", "plain")
    assert "72 more, see --full" in plw(*options).output
    assert "72 more, see --full" in plw(*options, "--ids").output
    whole = plw(*options, "--full").output
    assert "more, see" not in whole
    assert whole.count("│") > 120


def test_earlier_answers_are_a_role_of_the_prompt(tmp_path: Path, model: Path) -> None:
    turns = [("user", "Hi"), ("assistant", "ok"), ("user", "No"), ("assistant", "go")]
    messages = [{"role": role, "content": content} for role, content in turns]
    data = write(tmp_path / "d.jsonl", {"messages": messages})
    output = plw("data", "show", data, "--model", model, "--template", "chat", "--plw", 0.1).output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "history 0.1 2 o│k" in lines
    assert lines[0].startswith(
        "roles: system, user, history, template, completion; weights: PLW 0.1"
    )


@pytest.mark.parametrize(("turns", "is_hinted"), [("last", True), ("each", False)])
def test_stats_say_that_earlier_answers_count_as_prompt(
    tmp_path: Path, model: Path, turns: str, is_hinted: bool
) -> None:
    roles = ("user", "assistant", "user", "assistant")
    data = write(tmp_path / "d.jsonl", {"messages": [{"role": r, "content": r} for r in roles]})
    options = ("--model", model, "--template", "chat", "--set", f"data.completion_turns={turns}")
    hint = "to train on them, set data.completion_turns to all or each"
    assert (hint in plw("data", "stats", data, *options).output) is is_hinted


def test_every_role_has_a_colour() -> None:
    assert set(_COLOURS) == {role.name.lower() for role in Role}


class TestSelection:
    @pytest.fixture
    def options(self, tmp_path: Path, model: Path) -> tuple[object, ...]:
        rows = [{"prompt": "Q" * (1 + i % 5) + str(i), "completion": "ok"} for i in range(9)]
        data = write(tmp_path / "d.jsonl", *rows)
        return ("data", "show", data, "--model", model, "--template", "plain")

    def ids(self, *arguments: object) -> list[str]:
        return [example["id"] for example in plw_json(*arguments)["examples"]]

    def test_number_and_start(self, options: tuple[object, ...]) -> None:
        assert self.ids(*options) == ["d.jsonl:1", "d.jsonl:2", "d.jsonl:3"]
        assert self.ids(*options, "-n", 2, "--start", 8) == ["d.jsonl:9"]
        assert "give a number from 0 to 8" in refused(*options, "--start", 9)

    def test_ids(self, options: tuple[object, ...]) -> None:
        assert self.ids(*options, "--id", "d.jsonl:7", "--id", "d.jsonl:2") == [
            *("d.jsonl:7", "d.jsonl:2"),
        ]
        message = refused(*options, "--id", "d.jsonl:70", "--id", "x")
        assert "no example has the id d.jsonl:70; give an id such as d.jsonl:1" in message
        assert "no example has the id x" in message

    def test_longest_first(self, options: tuple[object, ...]) -> None:
        assert self.ids(*options, "--longest", "-n", 3) == ["d.jsonl:5", "d.jsonl:4", "d.jsonl:9"]

    def test_random_examples_depend_on_the_seed_only(self, options: tuple[object, ...]) -> None:
        first = self.ids(*options, "--random", 4, "--seed", 1)
        assert len(set(first)) == 4
        assert self.ids(*options, "--random", 4, "--seed", 1) == first
        assert self.ids(*options, "--random", 4, "--seed", 3) != first
        assert len(self.ids(*options, "--random", 100)) == 9

    def test_search_finds_text_of_prompt_completion_and_template(
        self, options: tuple[object, ...]
    ) -> None:
        assert self.ids(*options, "--search", "q7") == ["d.jsonl:8"]
        assert self.ids(*options, "--search", "OK<EOS>", "-n", 2) == ["d.jsonl:1", "d.jsonl:2"]
        assert self.ids(*options, "--search", "q", "--start", 8) == ["d.jsonl:9"]
        assert "no example contains 'zz'" in refused(*options, "--search", "zz")

    def test_two_selections_are_rejected(self, options: tuple[object, ...]) -> None:
        assert "give only one of" in refused(*options, "--longest", "--search", "q")


def test_the_rendered_text_is_printed_with_its_line_breaks(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "a\n[b]\x1b[31m", "completion": "ok"})
    output = plw("data", "show", data, "--model", model, "--template", "plain").output
    assert [line for line in output.splitlines() if "▏" in line] == [
        *("  ▏a", "  ▏[b]\\x1b[31m", "  ▏", "  ▏ok<eos>"),
    ]


def test_the_header_counts_tokens_and_weights_by_role(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    output = plw("data", "show", data, "--model", model, "--template", "plain", "--plw", 0.1).output
    assert "d.jsonl:1 (index 0): 7 tokens; R_g 0.75" in output
    assert "user 2, weight 0.1; template 2, weight 0.2; completion 3, weight 3" in output


def test_tokens_that_are_parts_of_a_character_are_shown_as_bytes(
    tmp_path: Path, model: Path
) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "é", "completion": "ok"})
    output = plw("data", "show", data, "--model", model, "--template", "plain").output
    assert "\\xc3│é" in output


def test_truncated_tokens_are_marked_where_they_were(tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "d.jsonl", {"prompt": "0123456789", "completion": "ok"})
    options = ("data", "show", data, "--model", model, "--template", "plain", "--max-length", 8)
    [example] = plw_json(*options)["examples"]
    assert example["cuts"] == [{"position": 0, "num_tokens": 7, "text": "0123456"}]
    output = plw(*options).output
    assert "  ▏[7 tokens truncated]789" in output
    assert "truncated 7 0123456" in [" ".join(line.split()) for line in output.splitlines()]


@pytest.fixture
def spec(tmp_path: Path, model: Path) -> Path:
    data = write(tmp_path / "d.jsonl", {"prompt": "Hi", "completion": "ok"})
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"model: {{path: {model}}}\ndata: {{path: {data}, template: plain}}\n"
        "loss: {role_weights: {template: 0.25}}\nschedule: {steps: 1}\n"
        "search: {space: {loss.prompt_loss_weight: [0, 0.5]}}\n"
    )
    return path


def weights_by_role(found: dict[str, Any]) -> dict[str, float]:
    return {token["role"]: token["weight"] for token in found["examples"][0]["tokens"]}


def test_a_spec_provides_model_data_template_and_weights(spec: Path) -> None:
    found = plw_json("data", "show", spec)
    assert weights_by_role(found) == {"user": 0, "template": 0.25, "completion": 1}
    assert found["weighting"] == (
        "PLW 0 and loss.role_weights (the spec searches it; set another with --plw)"
    )
    assert plw_json("data", "show", "--config", spec) == found


def test_the_legend_names_the_role_weights_that_a_spec_searches(spec: Path) -> None:
    searched = "loss.role_weights.tool: [0, 1]"
    spec.write_text(spec.read_text().replace("[0, 0.5]}", f"[0, 0.5], {searched}}}"))
    assert plw_json("data", "show", spec)["weighting"] == (
        "PLW 0 and loss.role_weights (the spec searches it and loss.role_weights.tool; set another"
        " with --plw)"
    )
    assert plw_json("data", "show", spec, "--plw", 0.5)["weighting"] == (
        "PLW 0.5 and loss.role_weights (the spec searches loss.role_weights.tool)"
    )


def test_options_replace_settings_of_a_spec(spec: Path) -> None:
    changes = ("--plw", 0.5, "--template", "chat", "--set", "loss.role_weights.user=0.75")
    found = plw_json("data", "show", spec, *changes)
    assert found["template"] == "chat"
    assert weights_by_role(found) == {"user": 0.75, "template": 0.25, "completion": 1}


def test_other_data_is_shown_with_the_settings_of_a_spec(spec: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", {"prompt": "No", "completion": "go"})
    found = plw_json("data", "show", other, "--config", spec)
    assert found["examples"][0]["id"] == "other.jsonl:1"
    assert weights_by_role(found) == {"user": 0, "template": 0.25, "completion": 1}
    assert "two files of settings" in refused("data", "show", spec, "--config", spec)


def test_stats_takes_a_spec_as_well(spec: Path) -> None:
    found = plw_json("data", "stats", spec)
    assert (found["template"], found["user"]["total"], found["completion"]["total"]) == (
        *("plain", 2, 3),
    )
    unknown = refused("data", "stats", spec, "--set", "data.max_lenght=9")
    assert "command line: unknown key data.max_lenght; did you mean max_length?" in unknown


def test_show_without_data_is_rejected() -> None:
    assert refused("data", "show") == (
        "error: no data; give a data file, a hub name, demo:... or a spec"
    )


def test_likely_mistakes_are_warned_about() -> None:
    data = DataConfig(path="d", template="plain", max_length=8)
    tokenizer = tiny_tokenizer()
    examples = [
        pair("a", prompt="Hi", completion="0123456789"),
        pair("b", prompt="Hi", completion="k"),
    ]
    cut, whole = views_of(examples, data, tokenizer)
    assert cut.warnings == [
        "7 tokens do not fit data.max_length 8: without them the completion has no end, so the"
        " example is not used"
    ]
    assert whole.warnings == []
    kept = data.model_copy(update={"too_long_completion": "truncate"})
    [cut] = views_of(examples[:1], kept, tokenizer)
    assert cut.warnings == [
        "7 tokens do not fit data.max_length 8: the completion is cut",
        "the completion lost its end token, so the model does not learn to stop",
    ]


@pytest.mark.parametrize(
    ("template", "warnings"),
    [
        (
            "<|start|>{{ prompt }}",
            ["two start tokens: both the template and the tokenizer add one"],
        ),
        ("{{ prompt }}", []),
    ],
)
def test_a_duplicate_start_token_is_warned_about(
    tmp_path: Path, template: str, warnings: list[str]
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<|start|>"
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", tokenizer.bos_token_id)]
    )
    file = tmp_path / "custom.jinja"
    file.write_text(template)
    data = DataConfig(path="d", template=str(file))
    [view] = views_of([pair("a", prompt="Hi", completion="ok")], data, tokenizer)
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
    [view] = views_of([Example(id="x", messages=turns)], data, tokenizer, loss)
    completion = "".join(token.text for token in view.tokens if token.role == "completion")
    assert completion == "a<|end|>b<|end|>"
    assert {token.weight for token in view.tokens if token.role == "system"} == {0}
    assert {token.weight for token in view.tokens if token.role == "user"} == {0.5}


@pytest.mark.parametrize("text", ["naïve café 😀 end", "日本語", "a\tb\r\n"])
def test_concatenated_token_texts_are_the_input(text: str) -> None:
    tokenizer = tiny_tokenizer()
    texts = token_texts(tokenizer(text)["input_ids"], tokenizer)
    assert "".join(texts) == text
    assert "\ufffd" not in "".join(texts)
