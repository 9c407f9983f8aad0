"""Tests of `plw data check`: our labels compared with the masks of transformers and TRL."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main
from orchestrator.inspection.mask_differences import Difference, find_differences
from tests.orchestrator.plw import plw_json
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_tokenizer import tiny_tokenizer
from trainers.data.chat_template import GenerationMask
from trainers.data.examples import pair
from trainers.data.roles import Role, UntruncatedExample
from trainers.data.template import Template
from trainers.data_config import DataConfig

# Marks the text and the end token of answers, and writes a line break after them.
MARKED = (
    "{% for m in messages %}{{ m.role[0] + ':' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
)
U, T, C, X, H = (
    int(r) for r in (Role.USER, Role.TEMPLATE, Role.COMPLETION, Role.EXCLUDED, Role.HISTORY)
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def with_template(model: Path, template: str) -> Path:
    (model / "chat_template.jinja").write_text(template)
    return model


def write_chat(path: Path, *turns: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"messages": list(turns)}) + "\n")
    return path


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def marked_comparison(data: Path, model: Path, *options: object) -> dict[str, Any]:
    found = plw_json("data", "check", data, "--model", model, *options)
    comparison: dict[str, Any] = found["comparisons"][0]
    assert comparison["tool"] == "transformers, {% generation %}"
    return comparison


def kinds(comparison: dict[str, Any]) -> list[tuple[str, str, int, str]]:
    return [
        (one["kind"], one["trained_by"], one["num_tokens"], one["text"])
        for one in comparison["differences"]
    ]


def test_equal_labels_have_no_differences(tmp_path: Path, model: Path) -> None:
    data = write_chat(tmp_path / "d.jsonl", user("q"), answer("ok"))
    comparison = marked_comparison(data, with_template(model, MARKED))
    assert (comparison["num_equal"], comparison["differences"]) == (1, [])


@pytest.mark.parametrize(
    ("template", "options", "expected"),
    [
        (MARKED, (), [("earlier turn", "other", 2, "A<eos>")]),
        (MARKED, ("--completion-turns", "all"), []),
        (MARKED, ("--completion-turns", "each"), [("earlier turn", "other", 2, "A<eos>")]),
        (
            MARKED.replace(
                "+ eos_token }}{% endgeneration %}", "}}{% endgeneration %}{{ eos_token }}"
            ),
            ("--completion-turns", "all"),
            [],  # our labels follow the markers
        ),
        (
            MARKED.replace("eos_token }}", "eos_token + '\n' }}").replace("{{ '\n' }}", ""),
            ("--completion-turns", "all"),
            [("white space", "other", 2, "\n")],
        ),
        (
            MARKED.replace("{{ m.role[0] + ':' }}", "").replace(
                "{{ m.content + eos_token", "{{ 'a:' + m.content + eos_token"
            ),
            ("--completion-turns", "all"),
            [("header", "other", 4, "a:")],
        ),
        (
            MARKED,
            ("--max-length", 8),
            [("truncated", "other", 2, "A<eos>")],
        ),
    ],
)
def test_differences_of_chats_have_an_explanation(
    tmp_path: Path,
    model: Path,
    template: str,
    options: tuple[object, ...],
    expected: list[tuple[str, str, int, str]],
) -> None:
    chat = (user("q"), answer("A"), user("r"), answer("B"))
    data = write_chat(tmp_path / "d.jsonl", *chat)
    found = marked_comparison(data, with_template(model, template), *options)
    assert kinds(found) == expected
    assert all(one["explanation"] for one in found["differences"])


def test_turns_of_weight_0_are_explained(tmp_path: Path, model: Path) -> None:
    chat = (user("q"), answer("A", weight=0), user("r"), answer("B"))
    data = write_chat(tmp_path / "d.jsonl", *chat)
    found = marked_comparison(data, with_template(model, MARKED), "--completion-turns", "all")
    assert kinds(found) == [("weight 0", "other", 2, "A<eos>")]


def test_markers_around_user_turns_are_unexplained(tmp_path: Path, model: Path) -> None:
    wrong = MARKED.replace("m.role == 'assistant'", "true")
    data = write_chat(tmp_path / "d.jsonl", user("q"), answer("ok"))
    options = ["data", "check", str(data), "--model", str(with_template(model, wrong))]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 1, result.output
    assert result.output.endswith("unexplained differences: 1 example\n")


def test_templates_without_another_mask_say_so(tmp_path: Path, model: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "q", "completion": "ok"}\n')
    options = ["data", "check", str(data), "--model", str(model), "--template", "plain"]
    output = CliRunner().invoke(main, options).output
    assert (
        "not compared with transformers, {% generation %}: data.template plain is not a chat"
        " template"
    ) in output


def test_a_check_that_compares_nothing_is_an_error(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "trl" else find_spec(name)
    )
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "q", "completion": "ok"}\n')
    options = ["data", "check", str(data), "--model", str(model), "--template", "plain"]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2, result.output
    assert result.output.splitlines()[-1] == (
        "error: nothing was compared; install TRL (pip install 'trl>=1.16'), or use a chat template"
        " with {% generation %} markers"
    )
    assert CliRunner().invoke(main, [*options, "--json"]).exit_code == 2


class TestFaultsOfOurs:
    """A wrong label of ours is never explained away. The chat is `u:q a:ok<end>`."""

    TOKENS = "u:q\na:ok"

    def differences(self, roles: list[int], mask: str) -> list[Difference]:
        tokenizer = tiny_tokenizer()
        ids = [*tokenizer(self.TOKENS)["input_ids"], tokenizer.eos_token_id]
        whole = UntruncatedExample(
            id="x",
            prompt_ids=ids[:6],
            prompt_roles=roles[:6],
            completion_ids=ids[6:],
            completion_roles=roles[6:],
        )
        return find_differences(
            pair("x", prompt="q", completion="ok"),
            whole,
            GenerationMask(input_ids=ids, mask=[one == "1" for one in mask]),
            Template("plain", tokenizer),
            data=DataConfig(path="d"),
            is_last_turn_only=False,
        )

    @pytest.mark.parametrize(
        ("roles", "text"),
        [
            ([T, T, U, T, T, T, T, C, C], "o"),  # the answer's start is not trained on
            ([T, T, U, T, T, T, C, T, C], "k"),  # a token in the middle
            ([T, T, U, T, T, T, C, C, T], "<|end|>"),  # the end token
            ([T, T, U, T, T, T, H, H, H], "ok<|end|>"),  # the whole answer
        ],
    )
    def test_a_missing_label_is_unexplained(self, roles: list[int], text: str) -> None:
        assert self.differences(roles, "000000111") == [
            Difference("unexplained", False, len(text.replace("<|end|>", "e")), text)
        ]

    def test_a_label_of_the_user_text_is_unexplained(self) -> None:
        found = self.differences([T, T, C, T, T, T, C, C, C], "000000111")
        assert found == [Difference("unexplained", True, 1, "q")]


def test_trl_trains_on_the_same_tokens(tmp_path: Path, model: Path) -> None:
    data = write_chat(tmp_path / "d.jsonl", user("q"), answer("A"), user("r"), answer("B"))
    unmarked = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    found = plw_json("data", "check", data, "--model", with_template(model, unmarked))
    [comparison] = found["comparisons"]
    assert comparison["tool"] == "TRL, prompt and completion"
    assert kinds(comparison) == [("white space", "other", 1, "\n")]
    assert found["not_compared"] == [
        "transformers, {% generation %}: the chat template has no {% generation %} markers",
        "TRL, assistant_only_loss: TRL has no training template for this model",
    ]


@pytest.mark.parametrize("template", ["plain", "alpaca"])
def test_trl_trains_on_the_same_tokens_of_plain_templates(
    tmp_path: Path, model: Path, template: str
) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"instruction": "q", "input": "", "output": "ok"}\n')
    found = plw_json("data", "check", data, "--model", model, "--template", template)
    [comparison] = found["comparisons"]
    assert (comparison["num_equal"], comparison["differences"]) == (1, [])
